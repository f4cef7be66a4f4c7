"""Configurations that run code which a configuration has no business to run; here it makes a folder or file.

``MARKER`` stands for the path of that, ``HERE`` for the bundle's folder. A case is the files of a bundle by
name; dictionaries are written as JSON, and MONAI is asked for the id ``run``.
"""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np

Files = dict[str, Any]
MKDIR = "__import__('os').mkdir('MARKER')"
TARGET = {"_target_": "os.mkdir", "path": "MARKER"}
READER = {"_target_": "monai.transforms.LoadImaged", "keys": "image", "reader": "os.mkdir", "path": "MARKER"}
OWN = "monai_diffens"


def expression(text: str, *imports: str, **more: Any) -> Files:
    """A bundle whose ``run`` is an expression."""
    return {"inference.json": {"imports": [f"${line}" for line in imports], **more, "run": f"${text}"}}


def component(**content: Any) -> Files:
    return {"inference.json": {"run": content}}


def logging(*lines: str, section: str = "handler_console") -> Files:
    text = "[loggers]\nkeys=root\n[handlers]\nkeys=console\n[formatters]\nkeys=\n"
    text += "[logger_root]\nhandlers=console\n"
    text += f"[{section}]\n" + "\n".join(lines) + "\n"
    if section != "handler_console":
        text += "[handler_console]\nclass=FileHandler\n"
    return {"inference.json": {"run": 1}, "logging.conf": text}


# Expressions: names, attributes, calls.
EXPRESSIONS: dict[str, Files] = {
    "plain": expression(MKDIR),
    "eval bound in a list": expression(f'[eval for eval in []] or eval("{MKDIR}")'),
    "exec bound in a generator": expression(f'any(exec for exec in []) or exec("{MKDIR}")'),
    "exec bound in a dictionary": expression(f'{{exec: 1 for exec in []}} or exec("{MKDIR}")'),
    "exec bound in a list": expression(f'[exec for exec in []] or exec("{MKDIR}")'),
    "open bound in a tuple": expression("[(a, open) for a, open in []] or open('MARKER', 'w').close()"),
    "compile bound": expression(
        f"[(compile, eval) for compile, eval in []] or eval(compile(\"{MKDIR}\", 'x', 'eval'))"
    ),
    "getattr bound": expression(
        "[getattr for getattr in []] or getattr(@m.os, 'mkdir')('MARKER')", "import torch", m="@imports#0"
    ),
    "__import__ bound": expression(
        "[__import__ for __import__ in []] or getattr(__import__('os'), 'mkdir')('MARKER')"
    ),
    "bound around, used inside": expression(f'[eval("{MKDIR}") for x in [1] if not [eval for eval in []]]'),
    "parameter of a lambda": expression("(lambda f: f('MARKER'))(__import__('os').mkdir)"),
    "walrus": expression("(f := __import__('os').mkdir) and f('MARKER')"),
    "call of a bound name": expression("[f('MARKER') for f in [__import__('os').mkdir]]"),
    "getattr by a text": expression("getattr(__import__('os'), 'mk' + 'dir')('MARKER')"),
    "built-ins by name": expression(f'__builtins__["exec"]("{MKDIR}")'),
    "file": expression("open('MARKER', 'w').close()"),
    "f-string": expression("f'{torch.os.makedirs(\"MARKER\")}'"),
    "classes of classes": expression(
        "[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0]"
        ".__init__.__globals__['mkdir']('MARKER')"
    ),
    "what torch imports": expression("torch.os.mkdir('MARKER')", "import torch"),
    "what MONAI imports": expression("monai.utils.module.import_module('os').mkdir('MARKER')"),
    "what an own module imports": expression(
        "before_run.Path('MARKER').mkdir()", f"import {OWN}.bundle.before_run as before_run"
    ),
    "os of an own module": expression("files.os.mkdir('MARKER')", f"import {OWN}.files as files"),
    "reference to an import": expression("@m.os.mkdir('MARKER')", "import torch", m="@imports#0"),
    "reference to all imports": expression("@m[0].os.mkdir('MARKER')", "import torch", m="@imports"),
    "MONAI's own table": expression("__local_refs['imports::0'].os.mkdir('MARKER')", "import torch"),
    "import elsewhere": {"inference.json": {"m": "$import torch", "run": "$@m.os.mkdir('MARKER')"}},
    "import of os": expression("os.mkdir('MARKER')", "import os"),
    "import under a harmless name": expression("float('MARKER')", "from os import mkdir as float"),
    "import that begins a text": expression("os.mkdir('MARKER')", "import os; import torch"),
    "import of two": expression("os.mkdir('MARKER')", "import os, torch"),
    "loop over the attribute that is called": expression(
        "[[0 for monai.handlers.from_engine in [@m.os.mkdir]], monai.handlers.from_engine('MARKER')]",
        "import torch",
        "import monai",
        m="@imports#0",
    ),
    "attribute of a reference as a function": expression(
        "@set[0]",
        "import torch",
        m="@imports#0",
        set={"_target_": "monai.data.Dataset", "data": ["MARKER"], "transform": "$@m.os.mkdir"},
    ),
    "loop over attributes": expression(
        "[[0 for torch.float32 in [torch.os.mkdir]], torch.float32('MARKER')]", "import torch"
    ),
    "loop over items": expression(
        "[[0 for @a['x'] in [torch.os.mkdir]], @a['x']('MARKER')]", "import torch", a={"x": 1}
    ),
    "what NumPy imports": expression("np.f2py.os.mkdir('MARKER')"),
    "key of max": expression("max(['MARKER'], key=torch.os.mkdir)", "import torch"),
    "key of sorted": expression("sorted(['MARKER'], key=__import__('os').mkdir)"),
    "map": expression("[*map(torch.os.mkdir, ['MARKER'])]", "import torch"),
    "call of a reference": expression("@f[0]('MARKER')", f=[f"${MKDIR.split('(')[0]}('os').mkdir"]),
    "pickled weights": expression("torch.load('HERE/docs/evil.pt', weights_only=False)", "import torch"),
    "pickled array": expression("np.load('HERE/docs/evil.npy', allow_pickle=True)"),
}

# Components: what names a callable, or is looked up and called.
COMPONENTS: dict[str, Files] = {
    "target": component(**TARGET),
    "target through a module": component(_target_="torch.os.mkdir", path="MARKER"),
    "target through an own module": component(_target_=f"{OWN}.files.os.mkdir", path="MARKER"),
    "short target": component(_target_="run_cmd", cmd_list=["mkdir", "MARKER"]),
    "target by expression": component(_target_="$torch.os.mkdir", path="MARKER"),
    "target by reference": {
        "inference.json": {
            "f": {"_target_": "monai.utils.module.import_module", "name": "os"},
            "g": "$@f.mkdir",
            "run": {"_target_": "@g", "path": "MARKER"},
        }
    },
    "target in an overlay, ::": {
        "inference.json": {"run": {"_target_": "monai.data.Dataset", "path": "MARKER"}},
        "more.json": {"run::_target_": "os.mkdir"},
    },
    "target in an overlay, #": {
        "inference.json": {"a": {"b": {"path": "MARKER"}}, "run": "@a#b"},
        "more.json": {"a#b#_target_": "os.mkdir"},
    },
    "target merged": {"inference.json": {"run": {"path": "MARKER"}}, "more.json": {"+run": TARGET}},
    "target merged further down": {
        "inference.json": {"a": {"b": {"path": "MARKER"}}, "run": "@a#b"},
        "more.json": {"+a::b": {"_target_": "os.mkdir"}},
    },
    "handed out by _mode_": {
        "inference.json": {
            "load": {"_target_": "monai.transforms.LoadImaged", "_mode_": "callable", "keys": "image"},
            "run": "$@load(reader='os.mkdir', path='MARKER')",
        }
    },
    "handed out and called by a data set": {
        "inference.json": {
            "f": {"_target_": "os.mkdir", "_mode_": "callable"},
            "set": {"_target_": "monai.data.Dataset", "data": ["MARKER"], "transform": "@f"},
            "run": "$@set[0]",
        }
    },
    "handed out, and called with a reader by a data set": {
        "inference.json": {
            "load": {"_target_": "monai.transforms.LoadImaged", "_mode_": "callable", "path": "MARKER"},
            "more": {"_target_": "monai.data.Dataset", "data": ["os.mkdir"], "transform": "@again"},
            "again": "$[@load(keys='image', reader=r) for r in ['os.mkdir']]",
            "run": "@again",
        }
    },
    "called by a data set": {
        "inference.json": {
            "set": {"_target_": "monai.data.Dataset", "data": ["MARKER"], "transform": "$torch.os.mkdir"},
            "run": "$@set[0]",
        }
    },
    "_requires_": component(_target_="monai.transforms.Compose", _requires_=f"${MKDIR}"),
    "_disabled_": component(_target_="monai.transforms.Compose", _disabled_=f"${MKDIR}"),
    "_desc_": component(_target_="monai.transforms.Compose", _desc_=f"${MKDIR}"),
    "reader by text": {"inference.json": {"run": READER}},
    "reader in a list": {"inference.json": {"run": {**READER, "reader": ["NibabelReader", "os.mkdir"]}}},
    "reader by the keys of a dictionary": {"inference.json": {"run": {**READER, "reader": {"os.mkdir": 1}}}},
    "reader by a component": {
        "inference.json": {
            "run": {**READER, "reader": {"_target_": "monai.utils.first", "iterable": ["os.mkdir"]}}
        }
    },
    "reader by a listed function": {
        "inference.json": {"run": {**READER, "reader": {"_target_": "os.path.basename", "p": "x/os.mkdir"}}}
    },
    "reader by reference": {"inference.json": {"r": "os.mkdir", "run": {**READER, "reader": "@r"}}},
    "reader by expression": {"inference.json": {"run": {**READER, "reader": "$'os.' + 'mkdir'"}}},
    "reader in an overlay": {
        "inference.json": {"run": {**READER, "reader": None}},
        "more.json": {"run::reader": "os.mkdir"},
    },
    "reader in a list, in an overlay": {
        "inference.json": {"run": {**READER, "reader": ["NibabelReader"]}},
        "more.json": {"run::reader::-1": "os.mkdir"},
    },
    "reader that unpickles": {
        "inference.json": {
            "load": {"_target_": "monai.transforms.LoadImaged", "keys": "image", "allow_pickle": True},
            "set": {
                "_target_": "monai.data.Dataset",
                "data": [{"image": "HERE/docs/evil.npy"}],
                "transform": "@load",
            },
            "run": "$@set[0]",
        }
    },
    "a configuration elsewhere": {
        "../docs/evil.json": {"run": f"${MKDIR}"},
        "inference.json": {
            "w": {
                "_target_": "monai.bundle.ConfigWorkflow",
                "config_file": "HERE/docs/evil.json",
                "logging_file": False,
                "workflow_type": None,
            },
            "run": "$[@w.initialize(), @w.run()]",
        },
    },
    "a macro": {
        "../docs/evil.json": {"run": f"${MKDIR}"},
        "inference.json": {"run": "%HERE/docs/evil.json::run"},
    },
}

# Files: YAML, keys that are there twice.
FILES: dict[str, Files] = {
    "YAML": {"inference.yaml": f'run: "${MKDIR}"\n'},
    "YAML, by its short ending": {"inference.yml": "run: {_target_: os.mkdir, path: MARKER}\n"},
    "YAML overlay": {
        "inference.json": {"run": {"_target_": "monai.data.Dataset", "path": "MARKER"}},
        "more.yaml": "run::_target_: os.mkdir\n",
    },
    "YAML aliases": {"inference.yaml": "a: &a\n  _target_: os.mkdir\n  path: MARKER\nrun: [*a]\n"},
    "a key twice": {"inference.json": f'{{"run": 1, "run": "${MKDIR}"}}'},
}

# Logging configurations that MONAI 1.6.1 applies: it takes any handler, with any literals.
LOGGING: dict[str, Files] = {
    "a file": logging("class=FileHandler", "args=('MARKER',)"),
    "a file, capitals": logging("CLASS=FileHandler", "ARGS=('MARKER',)"),
    "a file, odd blanks": logging("class\x0b=FileHandler", "args\x0b=('MARKER',)"),
    "a file, by a colon": logging("class : FileHandler", "args : ('MARKER',)"),
    "a file, over lines": logging("class=FileHandler", "args=", "  ('MARKER',", "  )"),
    "a file, by kwargs": logging("class=FileHandler", "args=()", "kwargs={'filename': 'MARKER'}"),
    "a file, for all sections": logging("args=('MARKER',)", section="DEFAULT"),
    "a file that is renamed": logging("class=logging.handlers.RotatingFileHandler", "args=('MARKER',)"),
}

# What MONAI 1.6.1 does not run here, and is refused all the same.
UNPROVEN: dict[str, Files] = {
    "debugger": component(_target_="monai.transforms.Compose", _mode_="debug"),
    "break point": component(_target_="monai.transforms.Compose", _debug_=True),
    "break point by call": expression("breakpoint()"),
    "end": expression("exit()"),
    "defaults of a formatter, evaluated from Python 3.12 on": logging(
        f"format=x\ndefaults={MKDIR}", section="formatter_x"
    ),
    "class of a formatter": logging("class=this.Formatter", section="formatter_x"),
    "handler by expression": logging("class=StreamHandler", f"args=({MKDIR},)"),
    "handler by interpolation": logging("x=sys.stdout", "class=StreamHandler", "args=(%(x)s,)"),
    "target by a key below the top": {"inference.json": {"a": {"b::_target_": "os.mkdir"}, "run": 1}},
    "writer": component(_target_="monai.transforms.SaveImaged", keys="pred", writer="os.mkdir"),
    "YAML tag": {"inference.yaml": "run: !!python/object/apply:os.mkdir [MARKER]\n"},
    "a recursive YAML": {"inference.yaml": "run: &a [*a]\n"},
    "a YAML bomb": {
        "inference.yaml": "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)
        )
    },
    "another encoding": {"inference.json": '{"run": "\u3042"}'.encode("cp932")},
    "beyond ASCII": {"inference.json": '{"run": "\u3042"}'},
    "sizes that are evaluated": {"metadata.json": {"version": "1", "x": {"spatial_shape": ["9**9**9"]}}},
    "metadata": {"metadata.json": {"version": "1", "name": f"${MKDIR}"}},
    "target of the whole file": {"inference.json": {"_target_": "os.mkdir", "path": "MARKER"}},
    "format with attributes": expression("'{0.__class__.__init__.__globals__}'.format(@a)", a={"x": 1}),
    "a relative reference": expression("@##a + 1"),
    "all of the configuration": expression("@['imports']"),
    "a tower of powers": expression("9 ** 9 ** 9"),
    "a long text": expression("-" * 5000 + "1"),
    "brackets": expression("(" * 900 + "1" + ")" * 900),
    "code": {"scripts.py": "import os"},
    "pickle by its module": component(
        _target_="monai.data.PersistentDataset", data=[], transform=None, cache_dir=".", pickle_module="dill"
    ),
}

PROVEN = {
    f"{kind}: {name}": files
    for kind, cases in (
        ("expression", EXPRESSIONS),
        ("component", COMPONENTS),
        ("file", FILES),
        ("logging", LOGGING),
    )
    for name, files in cases.items()
}


class _Evil:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


def write_case(root: Path, files: Files, marker: Path) -> list[Path]:
    """Write a case into a bundle's folder, in place of its configurations; returns the files MONAI reads."""
    for old in (root / "configs").glob("inference.*"):
        old.unlink()
    written = []
    for name, content in files.items():
        path = root / "configs" / name
        if not isinstance(content, bytes):
            text = content if isinstance(content, str) else json.dumps(content)
            content = text.replace("MARKER", marker.as_posix()).replace("HERE", root.as_posix()).encode()
        path.write_bytes(content)
        if path.parent.resolve() == root / "configs" and path.name != "metadata.json":
            written.append(path)
    evil = _Evil(str(marker))
    (root / "docs" / "evil.pt").write_bytes(pickle.dumps(evil))
    array = np.empty(1, object)
    array[0] = evil
    np.save(root / "docs" / "evil.npy", array, allow_pickle=True)
    return written
