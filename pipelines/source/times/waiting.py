"""Limits the wait for a picture while data comes.

A camera that is joined between two key frames sends seconds or minutes of video that cannot be decoded. That is no
fault, but a stream from which a picture never comes is.
"""

from __future__ import annotations

from collections.abc import Callable

from visaged.pipelines.source.errors import SourceError

MOST_KEY_FRAME_S = 300.0
"""Longest wait in seconds for the first key frame; a camera that sends them more rarely is of no use here."""
_SAID_AFTER_S = 3.0


class PictureWatch:
    """Watches one connection of a live source for pictures.

    Args:
        most_silent_s: Seconds without a picture after which the source counts as failed.
        now_s: Monotonic seconds when the connection was opened.
        on_waiting: Called once with the reason, if the first key frame does not come within some seconds.
        hint: Returns what to add to the text of an error.
    """

    def __init__(
        self,
        most_silent_s: float,
        now_s: float,
        on_waiting: Callable[[str], None],
        hint: Callable[[], str] = lambda: "",
    ) -> None:
        self._hint = hint
        self._most_silent_s = most_silent_s
        self._on_waiting = on_waiting
        self._last_s = now_s
        self._last_packet_s: float | None = None
        self._has_begun = False  # a key frame or a picture came
        self._said = False

    @property
    def waits_for_key_frame(self) -> bool:
        """Whether video came, but no key frame or picture yet."""
        return not self._has_begun and self._last_packet_s is not None

    def packet(self, is_key: bool, now_s: float) -> None:
        """Note that a packet of the video came."""
        self._last_packet_s = now_s
        if is_key and not self._has_begun:
            self._has_begun, self._last_s = True, now_s

    def picture(self, now_s: float) -> None:
        """Note that a picture was decoded."""
        self._has_begun, self._last_s = True, now_s

    def left_out(self, now_s: float) -> None:
        """Note that a packet was left out on purpose, so that no picture is to be expected of it."""
        if self._has_begun:
            self._last_s = now_s

    def check(self, now_s: float) -> None:
        """Report a wait for a key frame, or give up.

        Raises:
            SourceError: No picture came in time.
        """
        silent_s = now_s - self._last_s
        if self._last_packet_s is not None and self.waits_for_key_frame:
            if now_s - self._last_packet_s <= self._most_silent_s:
                self._wait(silent_s)
                return
            silent_s = now_s - self._last_packet_s
        if silent_s > self._most_silent_s:
            raise SourceError("invalid", f"data comes, but no picture in {self._most_silent_s:.0f} s{self._hint()}")

    def _wait(self, silent_s: float) -> None:
        if silent_s > MOST_KEY_FRAME_S:
            raise SourceError(
                "invalid", f"video comes, but no key frame in {MOST_KEY_FRAME_S:.0f} s, and no picture without one"
            )
        if silent_s > _SAID_AFTER_S and not self._said:
            self._said = True
            self._on_waiting(
                "waits for the camera's next key frame, before which nothing can be decoded; set it to send one every "
                "few seconds"
            )
