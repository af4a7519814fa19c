"""Write the table of docs/weights.md: every weight file and folder of encoders/weights/registry.py.

python docs/generate_weights.py
"""

from __future__ import annotations

from pathlib import Path

from avfuse.encoders.table import TABLE
from avfuse.encoders.weights.registry import FOLDERS, REGISTRY

PAGE = Path(__file__).with_name("weights.md")
BEGIN = "<!-- made by docs/generate_weights.py: -->\n"
END = "<!-- end -->\n"
_HEAD = "| weights | for | what | licence | where from |\n|---|---|---|---|---|\n"


def table() -> str:
    """The table in Markdown: files first, then folders, each as the registry has them."""
    lines = []
    for file in REGISTRY.values():
        used = file.feature if file.feature in TABLE else "vggish"
        source = file.note if "by hand" in file.note else f"`avfuse weights fetch {file.name}`; {file.note}"
        lines.append((f"`{file.name}`: {file.file_name}", used, file.architecture, file.licence, source))
    for folder in FOLDERS.values():
        what = TABLE[folder.feature].long_name
        source = f"the folder `{folder.repository}`" + (f"; {folder.note}" if folder.note else "")
        lines.append((f"`{folder.feature}/`", folder.feature, what, folder.licence, source))
    shown = (
        f"| {name} | `{used}` | {what} | {_loud(licence)} | {source} |\n" for name, used, what, licence, source in lines
    )
    return _HEAD + "".join(shown)


def _loud(licence: str) -> str:
    """In bold where it forbids what many want to do, or says nothing."""
    return f"**{licence}**" if "commercial" in licence or licence.startswith("none") else licence


def page(text: str) -> str:
    """The page with the table of today in place of the one that is there."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
