"""Samples and their truth in COCO as one zip file, written while it is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from models.synthesis import Synthetic
from service.coco import CocoAnnotationOut, CocoCategoryOut, CocoImageOut, CocoOut


class Archive:
    """Samples with their picture's and mask's files as a zip file that grows as it is taken.

    Made with its first sample inside, so that an order that cannot be met fails before the answer
    has begun. Entries are deflate streams of level 0: a stored entry of unknown length could not
    be read before the whole file is there. Blocking: for a worker's thread.
    """

    def __init__(
        self,
        encoded: Iterator[tuple[Synthetic, bytes, bytes]],
        image_hw: tuple[int, int],
        labels: tuple[str, ...],
        about: dict[str, str | int],
    ) -> None:
        self.encoded = enumerate(encoded)
        self.image_hw = image_hw
        self.about = about
        self.rejected: Counter[str] = Counter()
        self.category_ids = {label: index for index, label in enumerate(labels, start=1)}
        self.images: list[CocoImageOut] = []
        self.annotations: list[CocoAnnotationOut] = []
        self.written = Chunks()
        self.zip = ZipFile(self.written, "w")
        self._write_next()

    def take(self) -> bytes:
        """The bytes that follow those taken before; empty at the end."""
        if not self.written.chunks and not self.written.is_complete:
            self._write_next()
        return self.written.take()

    def _write_next(self) -> None:
        index, encoded = next(self.encoded, (None, None))
        if index is None or encoded is None:
            self._write("annotations.json", self._annotations().model_dump_json().encode())
            self.zip.close()
            self.written.is_complete = True
            return
        sample, image, mask = encoded
        entry = self._note(index, sample)
        self._write(entry.file_name, image)
        self._write(entry.mask_file_name, mask)

    def _note(self, index: int, sample: Synthetic) -> CocoImageOut:
        image = CocoImageOut(
            id=index,
            file_name=f"image_{index:04d}.png",
            mask_file_name=f"mask_{index:04d}.png",
            width=self.image_hw[1],
            height=self.image_hw[0],
            seed=sample.seed,
        )
        self.images.append(image)
        self.rejected.update(sample.rejected)
        for defect in sample.defects:
            ids = (len(self.annotations) + 1, self.category_ids[defect.label])
            self.annotations.append(CocoAnnotationOut.of(defect, image, ids))
        return image

    def _annotations(self) -> CocoOut:
        rejected = {"rejected": self.rejected.total(), "rejected_by_reason": self.rejected}
        return CocoOut(
            info=self.about | rejected,
            images=self.images,
            annotations=self.annotations,
            categories=[CocoCategoryOut(id=i, name=n) for n, i in self.category_ids.items()],
        )

    def _write(self, name: str, data: bytes) -> None:
        self.zip.writestr(ZipInfo(name), data, ZIP_DEFLATED, 0)


class Chunks:
    """A file for `ZipFile` to write once, taken away in pieces."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.is_complete = False

    def write(self, data: bytes, /) -> int:
        """Keep it until it is taken."""
        self.chunks.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is buffered elsewhere."""

    def close(self) -> None:
        """Nothing to let go of."""

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = b"".join(self.chunks)
        self.chunks.clear()
        return taken
