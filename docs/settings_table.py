"""Writes the table of settings into docs/operations.md: `python -m docs.settings_table`."""

from pathlib import Path

from pydantic_core import PydanticUndefined

from models.settings import Settings

PAGE = Path(__file__).with_name("operations.md")
BEGIN, END = "<!-- settings: python -m docs.settings_table -->", "<!-- end of settings -->"


def table() -> str:
    """The table: variable, default and meaning of every setting."""
    prefix = Settings.model_config["env_prefix"]
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        unset = field.default in (None, "", PydanticUndefined)
        default = "" if unset else f"`{field.default}`"
        rows.append(f"| `{prefix}{name.upper()}` | {default} | {field.description or ''} |")
    return "\n".join(rows)


def renewed(page: str) -> str:
    """`page` with a new table between its marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
