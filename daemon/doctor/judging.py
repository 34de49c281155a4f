"""The verdict: rules that look at the facts, each with what to change; their thresholds are in `limits`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from visaged.daemon.doctor.limits import LIMITS
from visaged.daemon.doctor.report import Facts, Failure, Finding, Severity, Verdict


@dataclass(frozen=True, slots=True)
class Setting:
    """What of the configuration the advice depends on.

    Attributes:
        fps: Frames to analyse a second; None for every frame.
        long_side: Long side of the detector's canvas in pixels.
        close_up: Whether frames are searched on a small canvas too.
        min_face_px: Height of a face in pixels from which its attributes are read.
        is_udp: Whether RTSP media come by UDP.
    """

    fps: float | None = 5.0
    long_side: int = 640
    close_up: bool = False
    min_face_px: float = 20.0
    is_udp: bool = False


Rule = Callable[[Facts, Setting], Finding | None]


def findings(facts: Facts, setting: Setting, failure: Failure | None = None) -> list[Finding]:
    """Return what should be changed, faults first; nothing for a source that was not opened.

    A source without a picture has its failure alone, if there is one.
    """
    if facts.stream is None or (failure is not None and facts.reach.first_picture_ms is None):
        return []
    found = [finding for rule in _RULES if (finding := rule(facts, setting)) is not None]
    return sorted(found, key=lambda finding: finding.severity != "fault")


def verdict(facts: Facts, found: list[Finding], failure: Failure | None) -> Verdict:
    """Return how good a camera is, all in all."""
    if facts.stream is None or any(finding.severity == "fault" for finding in found):
        return "unusable"
    if failure is not None:
        # The daemon opens it again; what gave pictures for some seconds does so again.
        return "usable" if facts.faces.searched else "unusable"
    return "usable" if found else "good"


def _of(key: str, text: str, advice: str, severity: Severity = "advice") -> Finding:
    return Finding(key=key, severity=severity, text=text, advice=advice)


def _no_picture(facts: Facts, setting: Setting) -> Finding | None:
    if facts.faces.searched or facts.reach.first_picture_ms is not None:
        return None
    frames = facts.frames
    if not frames.packets:
        text = f"it is open, and no video came in {facts.looked_s:.0f} s"
        advice = "restart the camera; with transport udp, a firewall may keep its packets away: try tcp"
        if facts.stream is not None and facts.stream.transport.startswith("RTP "):
            advice = "check that the sender runs and sends to the port in the file, and that no firewall is between"
        return _of("no_picture", text, advice, "fault")
    if not frames.key_frames:
        text = f"{frames.packets} pictures came, none of them a key frame, and without one none can be seen"
        advice = (
            "set the camera's key-frame interval (GOP, I-frame interval) to one or two seconds; to see whether one "
            "comes at all, look longer (--seconds 120)"
        )
        return _of("no_key_frame", text, advice, "fault")
    text = f"{frames.packets} pictures came, and none could be decoded"
    return _of("no_picture", text, "restart the camera, or set it to plain H.264 (no H.264+, no smart codec)", "fault")


def _still(facts: Facts, setting: Setting) -> Finding | None:
    if facts.stream is None or facts.stream.kind != "recording" or facts.frames.packets != 1:
        return None
    advice = (
        "send single pictures to POST /v1/faces; as a camera, name a video, a stream, or the http:// URL of a "
        "snapshot, which is asked again and again"
    )
    return _of("still", "it is a single picture, which ends as soon as it begins", advice, "fault")


def _slow_machine(facts: Facts, setting: Setting) -> Finding | None:
    cost, waiting = facts.cost, facts.arrival.waiting_share
    if waiting is not None and waiting < LIMITS.waiting_share and facts.looked_s >= 3.0:
        text = (
            f"this machine cannot decode the stream as fast as it comes: the reader waited for data in only "
            f"{waiting:.0%} of the time"
        )
        advice = (
            "take the camera's smaller stream, or a lower frame rate; else decoder_threads: 2, or a hardware decoder"
        )
        return _of("too_slow", text, advice, "fault")
    if cost.cameras == 0 and cost.fps is not None:
        text = f"this machine does not carry even one such camera at {cost.fps:g} analysed frames a second"
        advice = f"take the camera's smaller stream, or set fps lower than {cost.fps:g}"
        return _of("too_slow", text, advice, "fault")
    return None


def _silence(facts: Facts, setting: Setting) -> Finding | None:
    gap_ms = facts.arrival.longest_gap_ms
    if gap_ms is None or not facts.frames.packets or gap_ms < LIMITS.gap_s * 1000:
        return None
    text = f"no video came for {gap_ms / 1000:.1f} s"
    advice = "look for a weak wireless link, a full network or a camera that restarts its encoder; then look again"
    is_long = gap_ms >= 1000 * min(LIMITS.stall_s, LIMITS.silent_share * facts.looked_s)
    return _of("gap", text, advice, "fault" if is_long else "advice")


def _jitter(facts: Facts, setting: Setting) -> Finding | None:
    jitter_ms = facts.arrival.jitter_p95_ms
    waiting = facts.arrival.waiting_share
    if jitter_ms is None or jitter_ms < LIMITS.jitter_s * 1000 or _silence(facts, setting) is not None:
        return None
    if waiting is not None and waiting < LIMITS.waiting_share:  # not the camera's fault, and said elsewhere
        return None
    text = f"pictures come in bursts: one in twenty is {jitter_ms:.0f} ms late or more"
    advice = "look for a weak wireless link, a full network, or a recorder in between; a lower bit rate helps"
    return _of("bursts", text, advice)


def _damage(facts: Facts, setting: Setting) -> Finding | None:
    damage, packets = facts.damage, max(1, facts.frames.packets)
    broken, lost = max(damage.damaged_packets, damage.corrupt_frames), damage.lost_rtp_packets or 0
    share = (damage.damaged_packets + damage.corrupt_frames) / packets
    if share < LIMITS.damaged_share and not lost:
        return None
    parts = []
    if damage.damaged_packets:
        parts.append(f"{damage.damaged_packets} of {packets} pictures could not be decoded")
    if damage.corrupt_frames:
        parts.append(f"{damage.corrupt_frames} were decoded with damage")
    if lost:
        parts.append(f"{lost} RTP packets were lost")
    advice = "look for a bad cable, a weak wireless link or a camera with too little power"
    if facts.stream is not None and facts.stream.kind == "recording":
        advice = "the file is damaged; faces in damaged pictures may be missed or seen where there are none"
    elif facts.stream is not None and facts.stream.kind == "pictures":
        advice = "ask for fewer pictures (fps), or take the camera's RTSP stream"
    elif setting.is_udp:
        advice = "set transport: tcp, which sends again what is lost; else " + advice
    is_ruined = broken / packets >= LIMITS.ruined_share
    return _of("damage", ", ".join(parts), advice, "fault" if is_ruined else "advice")


def _key_interval(facts: Facts, setting: Setting) -> Finding | None:
    frames = facts.frames
    usual = frames.key_interval_median_s
    if facts.stream is None or facts.stream.kind == "recording" or not frames.key_frames:
        return None
    if usual is None:
        usual = frames.key_interval_at_least_s
        if usual is None or usual < LIMITS.key_interval_s:
            return None
        text = f"only one key frame came, and none for {usual:.0f} s after it"
    elif usual >= LIMITS.key_interval_s:
        text = f"key frames come only every {usual:.1f} s"
    else:
        return None
    advice = (
        "set the key-frame interval (GOP, I-frame interval) to one or two seconds: until the next one, a camera that "
        "is opened again shows nothing, and damage stays. Smart codecs (H.264+, H.265+) stretch it: switch them off"
    )
    return _of("key_interval", text, advice)


def _frame_rate(facts: Facts, setting: Setting) -> Finding | None:
    true, promised, stream = facts.frames.true_fps, facts.frames.promised_fps, facts.stream
    if true is None or stream is None or stream.kind != "live":
        return None
    if facts.arrival.waiting_share is not None and facts.arrival.waiting_share < LIMITS.waiting_share:
        return None
    if setting.fps is not None and true < LIMITS.frame_rate_share * setting.fps:
        text = f"{true:.1f} pictures a second come, and {setting.fps:g} are to be analysed (fps)"
        return _of("frame_rate", text, f"raise the camera's frame rate to {setting.fps:g} or more, or lower fps")
    if facts.stamps.trusted and promised is not None and true < LIMITS.frame_rate_share * promised:
        text = f"{true:.1f} pictures a second come, and the stream promises {promised:.1f}"
        advice = (
            "the camera leaves pictures out: limit its exposure time (slow shutter, low-light mode), lower its bit "
            "rate or size, or set the rate that it can keep"
        )
        return _of("frame_rate", text, advice)
    return None


def _stamps(facts: Facts, setting: Setting) -> Finding | None:
    stamps = facts.stamps
    rate = stamps.rate
    if facts.stream is not None and facts.stream.kind == "recording":
        return None
    if stamps.jumps:
        text = f"its time stamps jumped {_times(stamps.jumps)}"
        text += f", {_times(stamps.steps_back)} backwards" if stamps.steps_back else ""
        advice = (
            "update the camera's firmware, and let it set its clock by NTP alone; look whether a recorder in between "
            "begins its stream anew. At a jump, all tracks may end"
        )
        return _of("stamps", text, advice)
    if rate is not None and abs(rate - 1) >= LIMITS.stamp_rate:
        text = f"its time stamps run at about {rate:.2f} of real time"
        advice = (
            "set the frame rate that the camera really has, or update its firmware; capture times go by arrivals until "
            "then"
        )
        return _of("stamps", text, advice)
    return None


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _clock(facts: Facts, setting: Setting) -> Finding | None:
    clock = facts.camera_time
    if clock.is_plausible is not False or clock.behind_ms is None:
        return None
    off = f"{abs(clock.behind_ms) / 1000:.1f} s {'behind' if clock.behind_ms > 0 else 'ahead of'}"
    text = f"the camera's clock is {off} this machine's, so capture times go by arrivals"
    return _of("clock", text, "let camera and machine follow the same NTP server")


def _size(facts: Facts, setting: Setting) -> Finding | None:
    stream, faces = facts.stream, facts.faces
    if stream is None or stream.width is None or stream.height is None:
        return None
    long = max(stream.width, stream.height)
    smallest = faces.height_min_px
    size = f"{stream.width}x{stream.height}"
    if long > LIMITS.large_px:
        if smallest is not None and smallest < LIMITS.substream_face_px / 2:
            return None  # it is needed
        seen = "" if smallest is None else f", and the smallest face is {smallest:.0f} px high"
        text = f"its pictures are large ({size}){seen}; each is decoded, then scaled to {setting.long_side} px"
        return _of("size", text, "take the camera's smaller stream (640 to 1280 px wide), unless faces are far away")
    if long < LIMITS.small_px and faces.height_median_px is not None and faces.height_median_px < 2 * LIMITS.face_px:
        text = f"its pictures are small ({size}), and so are the faces: {faces.height_median_px:.0f} px in the median"
        return _of("size", text, "take the camera's larger stream (640 to 1280 px wide)")
    return None


def _rate_is_needless(facts: Facts, setting: Setting) -> Finding | None:
    true, cost = facts.frames.true_fps, facts.cost
    if true is None or setting.fps is None or facts.stream is None or facts.stream.kind != "live":
        return None
    if true <= max(LIMITS.needless_fps, 3 * setting.fps) or cost.read_ms_per_s is None or cost.detect_ms is None:
        return None
    if cost.read_ms_per_s < max(LIMITS.busy_ms_per_s, cost.detect_ms * setting.fps):
        return None  # decoding is not what counts
    text = f"{true:.0f} pictures a second are decoded ({cost.read_ms_per_s:.0f} ms of a core), {setting.fps:g} analysed"
    return _of("frame_rate", text, "set the camera to 10 to 15 pictures a second, or take its smaller stream")


def _format(facts: Facts, setting: Setting) -> Finding | None:
    stream = facts.stream
    if stream is None or stream.pixel_format is None:
        return None
    if stream.interlaced:
        text = "its pictures are interlaced: what moves has combs at its edges"
        return _of("interlaced", text, "set the camera or encoder to progressive pictures")
    if stream.sizes > 1:
        text = f"its pictures changed their size, {stream.sizes} sizes in {facts.looked_s:.0f} s"
        return _of("sizes", text, "switch off what adapts the size to the network, and choose one size")
    return None


def _missed_faces(facts: Facts, setting: Setting) -> Finding | None:
    faces = facts.faces
    least = max(LIMITS.fewest_missed, LIMITS.missed_share * faces.compared_faces)
    if faces.missed_large >= least and not setting.close_up:
        text = f"{faces.missed_large} of {faces.compared_faces} faces fill much of the picture"
        return _of("close_up", text + ", and are found only in a close-up", "set inference.close_up: true")
    if faces.missed_small >= least:
        text = (
            f"{faces.missed_small} of {faces.compared_faces} faces in {faces.compared} pictures are found only at "
            f"{2 * setting.long_side} px, not at {setting.long_side}"
        )
        advice = (
            f"set inference.long_side: {2 * setting.long_side} (four times the work for the detector), or bring the "
            "camera closer, or narrow its view"
        )
        return _of("small_faces", text, advice)
    return None


def _small_faces(facts: Facts, setting: Setting) -> Finding | None:
    height = facts.faces.height_median_px
    if height is None or height >= setting.min_face_px:
        return None
    text = (
        f"half of the faces are lower than {height:.0f} px; below {setting.min_face_px:g} px, attributes are not read"
    )
    return _of("small_faces", text, "bring the camera closer, narrow its view, or take its larger stream")


def _light(facts: Facts, setting: Setting) -> Finding | None:
    light = facts.light
    if light.mean_percent is None or light.bright_percent is None:
        return None
    if light.mean_percent < LIMITS.dark_mean_percent:
        text = f"pictures are dark: {light.mean_percent:.0f} % of white on average"
        return _of("dark", text, "add light, or raise the camera's gain, exposure or infrared; then look again")
    if light.bright_percent > LIMITS.bright_percent:
        text = f"{light.bright_percent:.0f} % of the picture is plain white"
        return _of(
            "bright", text, "lower the exposure, switch on wide dynamic range, or turn the camera off the window"
        )
    return None


def _blur(facts: Facts, setting: Setting) -> Finding | None:
    blur = facts.faces.blur
    if blur is None or blur < LIMITS.blur:
        return None
    text = f"faces are blurred ({blur:.2f}; eyes and lips lose their edges from 0.5 on)"
    advice = (
        "focus the lens, clean it, shorten the exposure (1/100 s for people who walk), raise the bit rate, and reduce "
        "noise reduction"
    )
    return _of("blur", text, advice)


_RULES: tuple[Rule, ...] = (
    _no_picture,
    _still,
    _slow_machine,
    _silence,
    _damage,
    _key_interval,
    _frame_rate,
    _rate_is_needless,
    _jitter,
    _stamps,
    _clock,
    _size,
    _format,
    _missed_faces,
    _small_faces,
    _light,
    _blur,
)
