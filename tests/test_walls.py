"""Imports go one way; see the picture in CONTRIBUTING.md."""

import ast
import importlib
import inspect
import textwrap
from pathlib import Path

import tfamp

PACKAGE = Path(tfamp.__file__).parent

# A module may import from rooms of a lower number, and from its own.
FLOORS = {
    "tfamp.run": 0,
    "tfamp.precision": 1,
    "tfamp.reporting": 1,
    "tfamp.telemetry": 2,
    "tfamp.data": 2,
    "tfamp.models": 2,
    "tfamp.training": 3,
    "tfamp.sweeping": 3,
    "tfamp.diagnosis": 4,
    "tfamp.train": 5,
    "tfamp.sweep": 5,
    "tfamp.report": 5,
    "tfamp.fidelity": 5,
}
# Rooms of one floor do not know each other.
APART = [
    ("tfamp.data", "tfamp.models"),
    ("tfamp.data", "tfamp.telemetry"),
    ("tfamp.models", "tfamp.telemetry"),
    ("tfamp.training", "tfamp.sweeping"),
    ("tfamp.reporting", "tfamp.precision"),
]


def room_of(module):
    """The room a dotted name lies in, or None for the package itself."""
    parts = module.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 else None


def imports():
    """(importing module, imported module) for every import of tfamp in tfamp, lazy ones too."""
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(("tfamp", *path.relative_to(PACKAGE).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: write imports in full"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                if name.split(".")[0] == "tfamp":
                    yield module, name


def test_every_room_has_a_floor():
    rooms = {room_of(module) for module, _ in imports()} - {"tfamp.__init__"}
    assert rooms <= set(FLOORS), "Give the new room a floor."


def test_imports_go_down():
    for module, imported in imports():
        here, there = room_of(module), room_of(imported)
        if there not in FLOORS:
            continue  # `import tfamp`, `from tfamp import __version__`
        assert FLOORS[here] >= FLOORS[there], f"{module} imports {imported}"
        assert (here, there) not in APART and (there, here) not in APART, (module, imported)


def part_of(module):
    """Of a module of reporting/: reading and comparing (0), pictures (1) or pages (2)."""
    parts = module.removeprefix("tfamp.reporting.").split(".")
    return {"figures": 1, "pages": 2}.get(parts[0], 0)


def test_reading_knows_no_pictures_and_pictures_no_pages():
    within = [pair for pair in imports() if all(m.startswith("tfamp.reporting.") for m in pair)]
    assert {part_of(module) for module, _ in within} == {0, 1, 2}
    for module, imported in within:
        assert part_of(module) >= part_of(imported), f"{module} imports {imported}"


# The look that the pages of every command share.
LOOK = {
    "tfamp.reporting.figures": ("picture", "rows", "style"),
    "tfamp.reporting.pages": (
        "formatting",
        "markdown",
        "page",
        "page_files",
        "placed_picture",
        "table",
    ),
}


def test_the_look_of_pages_knows_nothing_of_reports():
    look = {f"{folder}.{name}" for folder, names in LOOK.items() for name in names}
    seen = set()
    for module, imported in imports():
        if module in look and imported.startswith("tfamp.reporting"):
            # `from package import module` and `from module import name`.
            assert imported in look or imported.rpartition(".")[0] in look, (module, imported)
            seen.add(module)
    assert "tfamp.reporting.pages.page_files" in seen


def test_a_run_on_paper_needs_no_tensorflow():
    for path in (PACKAGE / "run").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in ("tensorflow", "keras"), path


INTERNALS = ("tfamp.precision.keras_internals", "tfamp.precision.layer_internals")
# Of Python itself, and of other packages than Keras's and TensorFlow's.
NOT_THE_FRAMEWORKS = {"sys._getframe", "os._exit"}


def sources():
    """(module, path, syntax tree) of every module in tfamp."""
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(("tfamp", *path.relative_to(PACKAGE).with_suffix("").parts))
        yield module, path, ast.parse(path.read_text(encoding="utf-8"))


def is_private(name):
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def own_private_names():
    """Every private name that tfamp defines: attributes, functions, variables, slots."""
    names = {"_replace", "_asdict", "_fields"}  # What a NamedTuple has.
    for module, _, tree in sources():
        if module in INTERNALS:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
                # `layer._name = value` sets an attribute of something else's.
                is_own = isinstance(node, ast.Name) or ast.unparse(node.value) in ("self", "cls")
                names.add((node.id if isinstance(node, ast.Name) else node.attr) if is_own else "")
    return {name for name in names if is_private(name)}


def private_uses(tree):
    """Private names that a module reads from something, with their line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node.attr, ast.unparse(node), node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("attr"):
            # getattr, setattr, hasattr, delattr.
            for name in node.args[1:2]:
                if isinstance(name, ast.Constant) and is_private(str(name.value)):
                    yield name.value, ast.unparse(node), node.lineno


def test_private_names_of_the_frameworks_are_in_one_place():
    known = own_private_names()
    for module, path, tree in sources():
        if module in INTERNALS:
            continue
        for name, used, line in private_uses(tree):
            is_known = name in known or used in NOT_THE_FRAMEWORKS
            assert is_known, f"{path}:{line} uses {used}: give it a function in one of {INTERNALS}"
        text = path.read_text(encoding="utf-8")
        for hidden in ("keras.src", "keras_cv.src", "tensorflow.python", "__internal__"):
            assert hidden not in text, (
                f"{path} uses {hidden}: give it a function in one of {INTERNALS}"
            )


def private_names_of(base):
    """The private attributes of a class of the frameworks, and those that its methods set."""
    names = {name for name in vars(base) if is_private(name)}
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base)))):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return {name for name in names if is_private(name)}


def subclasses_of_frameworks():
    """(class, the private names that its module sets on `self` or defines in it)."""
    for module, _, tree in sources():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.bases:
                cls = getattr(importlib.import_module(module), node.name)
                own = {
                    inner.attr
                    for inner in ast.walk(node)
                    if isinstance(inner, ast.Attribute) and ast.unparse(inner.value) == "self"
                }
                yield cls, {name for name in own | set(vars(cls)) if is_private(name)}


def test_no_class_overrides_or_calls_a_private_name_of_its_base():
    seen = set()
    for cls, own in subclasses_of_frameworks():
        for base in cls.__mro__:
            package = base.__module__.split(".")[0]
            if package in ("keras", "keras_cv", "tensorflow"):
                seen.add(cls)
                # What TensorFlow's tracking sets on everything is nobody's.
                hit = own & private_names_of(base)
                assert not hit, f"{cls.__name__} touches {hit} of {base.__name__}"
    assert len(seen) > 5


def test_flags_are_read_in_one_place():
    readers = [m for m in PACKAGE.rglob("*.py") if "absl" in m.read_text(encoding="utf-8")]
    assert {path.relative_to(PACKAGE).as_posix() for path in readers} == {
        "run/command.py",
        "run/flags.py",
    }


def test_no_import_leads_back():
    known = {
        ".".join(("tfamp", *path.relative_to(PACKAGE).with_suffix("").parts))
        for path in PACKAGE.rglob("*.py")
    }
    graph = {module: set() for module in known}
    for module, imported in imports():
        graph[module] |= {imported, imported.rpartition(".")[0]} & known - {module}

    def follow(module, way):
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module in graph:
            for imported in graph[module]:
                follow(imported, [*way, module])
            del graph[module]

    for module in known:
        follow(module, [])


def test_no_two_test_files_share_a_name():
    """pytest takes a file for the module of its name: the second one is an error in a whole run."""
    seen = {}
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        other = seen.setdefault(path.name, path)
        assert other is path, f"{path} and {other}: give one another name"
