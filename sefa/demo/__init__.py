"""The generators that `sefa demo` shows, and the ruler that names what directions do to letters."""

from sefa.demo.faces import INSTALL as INSTALL
from sefa.demo.faces import NAMES as NAMES
from sefa.demo.faces import PACKAGE as PACKAGE
from sefa.demo.faces import find_faces as find_faces
