"""A parser of XML without document types, entities and external files, for files that strangers wrote."""

from dataclasses import dataclass, field
from xml.parsers import expat

from worker.distillation.errors import UploadError

MOST_BYTES = 4 * 2**20
MOST_DEPTH = 32
MOST_ELEMENTS = 200_000
WAY = "Save it again as plain XML, as Pascal VOC has it."


@dataclass
class Element:
    """An element with its text and its children."""

    name: str
    children: list["Element"] = field(default_factory=list)
    text: str = ""

    def all(self, name: str) -> list["Element"]:
        """The children of this name."""
        return [child for child in self.children if child.name == name]

    def find(self, name: str) -> "Element | None":
        """The first child of this name."""
        return next((child for child in self.children if child.name == name), None)

    def said(self, name: str) -> str:
        """The text of the first child of this name; empty without one."""
        child = self.find(name)
        return child.text.strip() if child is not None else ""


class _Builder:
    def __init__(self, where: str):
        self.where = where
        self.open = [Element("")]
        self.count = 0

    def start(self, name: str, _attributes: object) -> None:
        self.count += 1
        if self.count > MOST_ELEMENTS or len(self.open) > MOST_DEPTH:
            raise UploadError(f"{self.where} has too many or too deep elements", WAY)
        element = Element(name)
        self.open[-1].children.append(element)
        self.open.append(element)

    def end(self, _name: str) -> None:
        self.open.pop()

    def characters(self, text: str) -> None:
        self.open[-1].text += text

    def refuse(self, *_arguments: object) -> None:
        raise UploadError(f"{self.where} declares a document type or entities, which are not read", WAY)


def parse(data: bytes, where: str) -> Element:
    """The root element; `where` names the file in errors.

    Raises:
        UploadError: it is too large, no XML, or declares a document type.
    """
    if len(data) > MOST_BYTES:
        raise UploadError(f"{where} has {len(data)} bytes; the maximum is {MOST_BYTES}", WAY)
    builder, parser = _Builder(where), expat.ParserCreate()
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.characters
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = builder.refuse
    parser.ExternalEntityRefHandler = None
    try:
        parser.Parse(bytes(data), True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise UploadError(f"{where} is not XML: {str(error)[:120]}", WAY) from error
    return builder.open[0].children[0]
