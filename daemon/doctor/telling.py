"""Says a report in words, a line for each subject."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from visaged.daemon.doctor.report import Report, Verdict

_VERDICTS: dict[Verdict, tuple[str, str]] = {
    "good": ("good", "bold green"),
    "usable": ("usable, and something should be changed", "bold yellow"),
    "unusable": ("not usable", "bold red"),
}


def tell(report: Report) -> RenderableType:
    """Return a report for a terminal, or as plain text for a pipe."""
    words, style = _VERDICTS[report.verdict]
    if report.stream is None and report.failure is None:
        words = "stopped before it was open, so nothing is known of it"
    parts: list[RenderableType] = [Text.assemble((report.camera, "bold"), ": ", (words, style))]
    if report.stream is not None:
        how = "stopped after" if report.interrupted else "looked for"
        count = report.frames.packets
        first = f", at its first {count} pictures" if report.stream.kind == "recording" and count > 1 else ""
        parts.append(Text(f"{how} {report.looked_s:.1f} s{first}\n", "dim"))
        parts.append(Padding(_table(list(_rows(report)), "cyan"), (0, 0, 0, 2)))
    if report.failure is not None:
        parts.append(Text(f"\n{report.failure.text}", "red"))
        parts.append(Padding(Text(f"Try next: {report.failure.advice}"), (0, 0, 0, 2)))
    if report.findings:
        parts.append(Text("\nWhat to change", "bold"))
        for number, finding in enumerate(report.findings, 1):
            colour = "red" if finding.severity == "fault" else "yellow"
            text = Text.assemble((_sentence(finding.text), colour), f"\n{_sentence(finding.advice)}")
            parts.append(Padding(_table([(f"{number}.", text)], colour), (0, 0, 0, 2)))
    parts += [Text(f"note: {note}", "yellow") for note in report.notes]
    return Group(*parts)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def _table(rows: list[tuple[str, str | Text]], style: str) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style=style, no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value if isinstance(value, Text) else Text(value))
    return table


def _rows(report: Report) -> Iterator[tuple[str, str]]:
    yield "Reached", _reached(report)
    yield "Stream", _stream(report)
    if report.frames.packets:
        yield "Pictures", _pictures(report)
    key_frames = _key_frames(report)
    if key_frames:
        yield "Key frames", key_frames
    if report.bits.mean_kbit_s is not None:
        yield "Bit rate", _bits(report)
    if report.arrival.longest_gap_ms is not None and report.frames.packets:
        yield "Arrival", _arrival(report)
    if report.reach.first_picture_ms is not None:
        yield "Damage", _damage(report)
    yield from _times(report)
    if report.faces.searched:
        yield (
            "Light",
            (
                f"{report.light.mean_percent:.0f} % of white on average; {report.light.dark_percent:.0f} % of the "
                f"pixels nearly black, {report.light.bright_percent:.0f} % white"
            ),
        )
        yield "Faces", _faces(report)
    yield from _costs(report)


def _reached(report: Report) -> str:
    reach = report.reach
    known = [
        ("connected after", reach.connect_ms),
        ("open after", reach.open_ms),
        ("first video after", reach.first_packet_ms),
        ("first picture after", reach.first_picture_ms),
    ]
    return ", ".join(f"{words} {_duration(value)}" for words, value in known if value is not None)


def _duration(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def _stream(report: Report) -> str:
    stream = report.stream
    assert stream is not None
    codec = " ".join(filter(None, [stream.codec, stream.profile, stream.level]))
    parts = [f"{codec}, {stream.transport}" + (f" ({stream.container})" if stream.transport.startswith("HTTP") else "")]
    if stream.width is not None:
        parts.append(f"{stream.width}x{stream.height}")
    if stream.pixel_format is not None:
        parts.append(f"{stream.pixel_format}, {'full' if stream.full_range else 'limited'} range")
    if stream.pixel_aspect not in (None, 1.0):
        parts.append(f"pixels {stream.pixel_aspect:.3g} times as wide as high")
    if stream.turned:
        parts.append("turned to be upright")
    if stream.kind != "live":
        parts.append("a recording" if stream.kind == "recording" else "one picture for each request")
    return ", ".join(parts)


def _pictures(report: Report) -> str:
    frames = report.frames
    if frames.true_fps is None:
        return f"{frames.packets} came"
    asked = report.stream is not None and report.stream.kind == "pictures"
    text = f"{frames.true_fps:.1f} a second"
    if asked:
        return text + " were answered"
    return text + (f"; promised are {frames.promised_fps:g}" if frames.promised_fps is not None else "")


def _key_frames(report: Report) -> str:
    frames = report.frames
    order = "; B-frames, which delay pictures" if frames.b_frames else "; no B-frames"
    if frames.all_key_frames or not frames.packets:
        return ""
    if not frames.key_frames:
        return "none"
    if frames.key_interval_median_s is not None:
        least, most = frames.key_interval_min_s, frames.key_interval_max_s
        text = f"every {frames.key_interval_median_s:.1f} s"
        return (text if least == most else f"{text} ({least:.1f} to {most:.1f} s)") + order
    return f"one in {frames.packets} pictures" + order


def _bits(report: Report) -> str:
    bits = report.bits
    mean, peak = bits.mean_kbit_s or 0.0, bits.peak_kbit_s or 0.0
    return f"{_rate(mean)}, {_rate(peak)} in the busiest second; largest picture {bits.largest_frame_kbyte:.0f} kB"


def _rate(kbit_s: float) -> str:
    return f"{kbit_s:.0f} kb/s" if kbit_s < 1000 else f"{kbit_s / 1000:.1f} Mb/s"


def _arrival(report: Report) -> str:
    arrival = report.arrival
    text = f"longest time without video {_duration(arrival.longest_gap_ms or 0.0)}"
    if arrival.jitter_p95_ms is not None:
        text = f"19 of 20 pictures within {arrival.jitter_p95_ms:.0f} ms of the fastest; {text}"
    return text


def _damage(report: Report) -> str:
    damage, packets = report.damage, report.frames.packets
    parts = []
    if damage.damaged_packets:
        asked = report.stream is not None and report.stream.kind == "pictures"
        parts.append(f"{damage.damaged_packets} {'requests failed' if asked else f'of {packets} not decoded'}")
    if damage.corrupt_frames:
        parts.append(f"{damage.corrupt_frames} of {packets} decoded with damage")
    if damage.lost_rtp_packets:
        parts.append(f"{damage.lost_rtp_packets} RTP packets lost")
    return ", ".join(parts) or (f"none in {packets}" + (", no RTP packet lost" if damage.lost_rtp_packets == 0 else ""))


def _times(report: Report) -> Iterator[tuple[str, str]]:
    stamps, clock, stream = report.stamps, report.camera_time, report.stream
    if stream is None or stream.kind == "recording" or not report.faces.searched:
        return
    parts = []
    if not stamps.trusted:
        parts.append("the pictures have no time stamps; times are those of arrival")
    elif stamps.rate is not None:
        even = abs(stamps.rate - 1) < 0.005
        parts.append("stamps run as real time" if even else f"stamps run at {stamps.rate:.2f} of real time")
        parts.append(f"jumps: {stamps.jumps}" if stamps.jumps else "no jumps")
    if clock.behind_ms is not None:
        off = f"{_duration(abs(clock.behind_ms))} {'behind' if clock.behind_ms >= 0 else 'ahead of'} this machine's"
        parts.append(f"the camera's clock (RTCP) is {off}, delay included")
    elif clock.is_sent:
        parts.append("the camera sends its clock (RTCP)")
    elif report.damage.lost_rtp_packets is not None:
        parts.append("the camera sent no clock (RTCP)")
    yield "Times", ", ".join(parts)


def _faces(report: Report) -> str:
    faces = report.faces
    if not faces.with_faces:
        return f"none in {faces.searched} searched pictures; let somebody stand there, to see how well that goes"
    text = f"in {faces.with_faces} of {faces.searched} searched pictures, {faces.height_min_px:.0f} to "
    text += f"{faces.height_max_px:.0f} px high (median {faces.height_median_px:.0f})"
    return text + (f"; blur {faces.blur:.2f} of 1" if faces.blur is not None else "")


def _costs(report: Report) -> Iterator[tuple[str, str]]:
    cost = report.cost
    if cost.detect_ms is None:
        return
    decoding = [] if cost.decode_ms is None else [f"decoding a picture {cost.decode_ms:.1f} ms"]
    searching = f"searching one {cost.detect_ms:.1f} ms ({cost.detector} on {cost.provider})"
    yield "Cost", "; ".join([*decoding, searching])
    if cost.cameras is not None:
        yield (
            "Machine",
            (
                f"carries about {cost.cameras} such camera{'' if cost.cameras == 1 else 's'} at {cost.fps:.3g} "
                f"analysed pictures a second: {cost.computed}"
            ),
        )
