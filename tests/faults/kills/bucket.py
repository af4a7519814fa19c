"""Object storage on a local folder, `bucket:///path`: no rename and no folders of its own, but objects are whole."""

import os
import uuid

import fsspec
from fsspec.implementations.local import LocalFileSystem, make_path_posix


class Bucket(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """What is put appears at once, as an object does; parts of it wait in `<store>.parts`."""

    protocol = "bucket"
    parts = ""

    @classmethod
    def _strip_protocol(cls, path):
        return make_path_posix(os.fspath(path).removeprefix("bucket://"))

    def ls(self, path, detail=False, **more):
        found = super().ls(path, detail=True, **more)
        kept = [each for each in found if each["type"] == "file" or any(entry[2] for entry in os.walk(each["name"]))]
        return kept if detail else [entry["name"] for entry in kept]

    def pipe_file(self, path, value, mode="overwrite", **_more):
        path, part = self._strip_protocol(path), os.path.join(self.parts, uuid.uuid4().hex)
        with open(part, "wb") as file:
            file.write(value)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.replace(part, path)


def in_bucket(root: str) -> str:
    """The URL of a store in such a storage."""
    Bucket.parts = f"{root}.parts"
    os.makedirs(Bucket.parts, exist_ok=True)
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    return f"bucket://{root}"
