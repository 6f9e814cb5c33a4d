"""Imports go one way; see the picture in CONTRIBUTING.md."""

import ast
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
    "tfamp.train": 4,
    "tfamp.sweep": 4,
    "tfamp.report": 4,
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


def test_flags_are_read_in_one_place():
    readers = [m for m in PACKAGE.rglob("*.py") if "absl" in m.read_text(encoding="utf-8")]
    assert {path.relative_to(PACKAGE).as_posix() for path in readers} == {
        "run/command.py",
        "run/flags.py",
        "train.py",
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
