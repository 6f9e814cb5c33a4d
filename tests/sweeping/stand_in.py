"""Stands in for `python -m tfamp.train`: leaves what a run leaves, or fails, in no time.

stand_in.py RUN_DIRECTORY CONTENT_OF_CONFIG_JSON CONTENT_OF_RESULT_JSON BEHAVIOUR
"""

import json
import os
import signal
import sys

path, config, result, behaviour = sys.argv[1:]


def leave(name, value):
    with open(os.path.join(path, name), "w") as file:
        json.dump(value, file)


def complete():
    leave("config.json", json.loads(config))
    leave("result.json", json.loads(result))


def wait(on_signal):
    # Blocked and fetched: a handler and pause() would lose a signal that comes between the two.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    print("Epoch 1/9  waiting")
    while True:
        on_signal(signal.sigwait([signal.SIGTERM]))


def told(signum):
    leave("told.json", {"signum": signum})
    sys.exit(128 + signum)


def not_told(signum):
    print("Epoch 2/9  not listening")


leave("pid.json", os.getpid())
leave("session.json", os.getsid(0))
leave("held.json", [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                    if os.path.exists(f"/proc/self/fd/{fd}")])  # fmt: skip
if behaviour == "completes":
    print("Building ...")
    print("Epoch 1/2  1.0 s  loss 2.0")
    print("a warning", file=sys.stderr)
    print("  step 3/4")
    print("Epoch 2/2  1.0 s  loss 1.0")
    complete()
elif behaviour == "fails":
    for line in range(20):
        print("line", line)
    print("ValueError: planted", file=sys.stderr)
    sys.exit(3)
elif behaviour == "lies":
    sys.exit(0)
elif behaviour == "is_killed":
    os.kill(os.getpid(), signal.SIGKILL)
elif behaviour == "waits":
    wait(told)
elif behaviour == "is_stubborn":
    wait(not_told)
elif behaviour == "completes_when_told":
    wait(lambda signum: (complete(), sys.exit(0)))
else:
    sys.exit(f"no behaviour {behaviour}")
