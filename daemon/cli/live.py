"""What `visaged watch` shows: lines as they come, and below them on a terminal a table of the cameras."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime
from types import TracebackType
from typing import Self

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from visaged.daemon.cli.console import line_of, show
from visaged.daemon.watch.board import Board
from visaged.daemon.watch.news import News, cleaned

_STATES = {"streaming": "green", "connecting": "yellow", "waiting": "bold red", "ended": "dim", "stopped": "dim"}
_MOST_LINE = 300
_REFRESHES = 4
"""How often a second the table is drawn anew."""


class Lines:
    """Prints news as lines for people.

    Args:
        console: Where to.
        cameras: Names of the cameras that are wanted; empty for all.
        kinds: Kinds of events that are wanted; empty for all.
    """

    def __init__(self, console: Console, cameras: Collection[str] = (), kinds: Collection[str] = ()) -> None:
        self.board = Board()
        self._console = console
        self._cameras = cameras
        self._kinds = kinds
        self.open = True
        """Whether the console still takes lines: a pipe may be closed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def take(self, news: News) -> None:
        """Show something new."""
        if not self._wanted(news):
            return
        said = self.board.take(news)
        if news.kind == "event":
            if not self._kinds or news.document["event"] in self._kinds:
                self._print(_event_line(news))
        elif said is not None:
            self._print(_line(news, said))

    def missed(self, count: int) -> None:
        """Say that so many news were lost because they were not shown in time."""
        self._print(Text(f"{count} messages are not shown: they came faster than they could be", "yellow"))

    def _wanted(self, news: News) -> bool:
        about_camera = news.kind in ("event", "camera", "presence", "removed")
        return not about_camera or not self._cameras or news.name in self._cameras

    def _print(self, text: Text) -> None:
        self.open = self.open and show(self._console, text)


class Screen(Lines):
    """Prints news as lines on a terminal, and keeps a table of the cameras below them."""

    def __init__(self, console: Console, cameras: Collection[str] = (), kinds: Collection[str] = ()) -> None:
        super().__init__(console, cameras, kinds)
        self._live = Live(
            console=console, get_renderable=self._table, refresh_per_second=_REFRESHES, transient=True,
            vertical_overflow="crop",
        )  # fmt: skip

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def _table(self) -> RenderableType:
        board = self.board
        rows = sorted(board.cameras.items())
        streaming = sum(row.state == "streaming" for _, row in rows)
        faces = sum(row.faces for _, row in rows)
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append("● " if board.connected else "○ ", "green" if board.connected else "bold red")
        head.append(board.link if board.connected is not False else f"{board.link}; trying again", "bold")
        for name, said in sorted(board.nodes.items())[:3]:
            head.append(f"  {name} {said}", "" if said == "online" else "bold red")
        if not rows:
            return Group(Text(), head)
        summary = Text(f"  {streaming} of {len(rows)} cameras stream, {faces} faces in view", no_wrap=True)
        has_fps = any(row.fps is not None for _, row in rows)
        name_width = min(24, max(6, *(len(name) for name, _ in rows)), max(6, self._console.width - 32))
        widths = [name_width, 10, 5, *([5] if has_fps else [])]
        # rich would take the room for a long reason from the columns before it.
        about_width = self._console.width - sum(widths) - 2 * len(widths) - 2
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for name, width in zip(("camera", "state", "faces", "fps"), widths, strict=False):
            justify: JustifyMethod = "right" if width == 5 else "left"
            table.add_column(name, width=width, justify=justify, no_wrap=True, overflow="ellipsis")
        if about_width >= 8:
            table.add_column("", width=about_width, no_wrap=True, overflow="ellipsis")
        most = max(3, self._console.height // 2 - 4)
        # Cameras that do not stream are what somebody has to look at.
        rows.sort(key=lambda item: item[1].state == "streaming")
        for name, row in rows[:most]:
            fps = [("" if row.fps is None else f"{row.fps:.1f}")] if has_fps else []
            about = [Text(row.error or row.shape)] if about_width >= 8 else []
            state = Text(row.state or "?", _STATES.get(row.state, ""))
            table.add_row(Text(name, "bold"), state, str(row.faces), *fps, *about)
        left = len(rows) - most
        return Group(
            Text(),
            head,
            summary,
            Padding(table, (0, 0, 0, 2)),
            *([Text(f"  and {left} more", "dim")] if left > 0 else []),
        )


class JsonLines(Lines):
    """Prints the messages themselves, one JSON object a line; what is said of the connection goes to stderr."""

    def __init__(
        self, console: Console, err: Console, cameras: Collection[str] = (), kinds: Collection[str] = ()
    ) -> None:
        super().__init__(console, cameras, kinds)
        self._err = err

    def take(self, news: News) -> None:
        """Print something new."""
        if not self._wanted(news):
            return
        said = self.board.take(news)
        if news.kind in ("link", "note"):
            if said is not None:
                show(self._err, said)
        elif not self._kinds or (news.kind == "event" and news.document["event"] in self._kinds):
            # ASCII alone: JSON leaves characters between 128 and 159 as they are, and terminals act on them.
            self._print(Text(json.dumps(news.document, separators=(",", ":"))))

    def missed(self, count: int) -> None:
        """Say that so many news were lost because they were not read in time."""
        show(self._err, Text(f"{count} messages are not printed: they came faster than they were read", "yellow"))


def _event_line(news: News) -> Text:
    try:
        text = line_of(dict(news.document))
    except Exception:  # it came from outside, and any part of it may be of another kind than expected
        return Text(f"an event of {news.name} cannot be shown: a part of it is not what an event has", "yellow")
    text.truncate(_MOST_LINE, overflow="ellipsis")
    return text


def _line(news: News, said: str) -> Text:
    text = Text(f"{datetime.now().astimezone():%H:%M:%S} ")
    if news.name:
        text.append(f"{news.name}  ", "bold")
    style = _STATES.get(str(news.document.get("state")), "")
    if news.kind == "link":
        style = "green" if news.document["connected"] else "bold red"
    elif news.kind == "note":
        style = "yellow"
    return text.append(cleaned(said, _MOST_LINE + 700), style)
