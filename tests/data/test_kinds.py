"""A file that is not what its name says: it is said, with the remedy."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from greenseg.data.volume import read
from greenseg.errors import UserError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def image_as(path: Path) -> bytes:
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5)), str(path))
    return path.read_bytes()


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path)
    (problem,) = caught.value.problems
    return problem.removeprefix(f"{path}: ")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".NII", ".png"])
@pytest.mark.parametrize(
    ("content", "what", "remedy"),
    [
        (LFS, "is a git-lfs pointer", "git lfs pull"),
        (b"/annex/objects/MD5E-s9--c1.nii.gz\n", "is a git-annex pointer", "git annex get"),
        (b"../../.git/annex/objects/0k/2F/MD5E-s9--c1/MD5E-s9--c1", "is a git-annex pointer", "git annex get"),
        (b"\r\n<!DOCTYPE html>\n<html><body>Log in</body></html>", "is a web page", "download"),
        (b"\xef\xbb\xbf<!-- x -->\n<HTML lang='en'>", "is a web page", "download"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is an XML text", "download"),
        (b'{"message": "Not Found"}', "is a JSON text", "download"),
        (b"404: Not Found", "is an error message", "download"),
        (b"", "is empty (0 bytes)", "get it again"),
    ],
)
def test_what_stands_for_an_image(suffix: str, content: bytes, what: str, remedy: str, tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(b"values")
    problem = refused(tmp_path / f"a{suffix}", content)
    assert problem.startswith(what)
    assert remedy in problem


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize(
    ("inside", "what"),
    [(".nii", "a NIfTI file"), (".nrrd", "an NRRD file"), (".mha", "a MetaImage file"), (".png", "a PNG picture")],
)
def test_another_format_is_named(suffix: str, inside: str, what: str, tmp_path: Path) -> None:
    content = image_as(tmp_path / f"b{inside}") if inside != ".png" else b"\x89PNG\r\n\x1a\n" + bytes(90)
    if suffix == inside:
        (tmp_path / "a.x").write_bytes(content)
        assert read((tmp_path / "a.x").rename(tmp_path / f"a{suffix}")).GetSize() == (5, 4, 3)
        return
    problem = refused(tmp_path / f"a{suffix}", content)
    if (suffix, inside) == (".nii.gz", ".nii"):
        assert problem == "is not compressed: rename it to a.nii"
    else:
        assert problem.startswith(f"is {what}; ")
        assert inside == ".png" or problem.endswith(f"rename it to a{inside}")


def test_packed_where_its_name_says_plain_and_packed_twice(tmp_path: Path) -> None:
    packed = image_as(tmp_path / "b.nii.gz")
    assert refused(tmp_path / "a.nii", packed) == "is compressed with gzip; rename it to a.nii.gz"
    assert refused(tmp_path / "a.nrrd", packed) == "is compressed with gzip; unpack it"
    assert refused(tmp_path / "a.nii.gz", gzip.compress(packed)) == "is compressed twice; unpack it once"
    assert refused(tmp_path / "a.nii.gz", b"PK\x03\x04" + bytes(99)) == "is a zip archive; unpack it"
    assert refused(tmp_path / "a.nii.gz", gzip.compress(b"<html>")).startswith(
        "is compressed with gzip, and contains a web page"
    )
    nrrd = gzip.compress(image_as(tmp_path / "c.nrrd"))
    assert refused(tmp_path / "a.nii.gz", nrrd).endswith("contains an NRRD file; unpack it, and rename it to a.nrrd")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", [".mhd", ".nhdr", ".hdr"])
def test_values_beside_a_header_may_be_such_a_file_too(suffix: str, packed: bool, tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16))
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"), useCompression=packed)
    (values,) = (path for path in tmp_path.iterdir() if path.suffix != suffix)
    for content, what in ((LFS, "is a git-lfs pointer"), (b"", "is empty (0 bytes)"), (b"<html>", "is a web page")):
        values.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read(tmp_path / f"a{suffix}")
        assert caught.value.problems[0].startswith(f"{values}: {what}")
