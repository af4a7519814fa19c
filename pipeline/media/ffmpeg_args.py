"""The words ffmpeg and ffprobe are started with. Starts nothing.

Local media containers only, over `file` only: a playlist or a network address inside a file that strangers made is
never followed. What a file claims costs no more than a large film: no picture above 2^26 px is decoded, no block above
512 MiB allocated, no more than 128 streams are opened.
"""

from __future__ import annotations

import re
from typing import Any

import ffmpeg

from .types import MAX_PIXELS, MAX_STREAMS, SAMPLE_RATE_HZ, VideoInfo

_CONTAINERS = (
    "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h261,h263,h264,hevc,obu,av1,ivf,flv,asf,ogg,mxf,gxf,"
    "dv,rm,nut,wtv,yuv4mpegpipe,mjpeg,gif,dhav,nsv"
)
_SAFE: dict[str, str | int] = {
    "protocol_whitelist": "file",
    "format_whitelist": _CONTAINERS,
    "max_alloc": 1 << 29,
    "max_streams": MAX_STREAMS,
    "max_pixels": MAX_PIXELS,
}
# Where the first look finds no frame size: key frames may be a minute apart.
_LONG_LOOK: dict[str, str | int] = {"probesize": 128 << 20, "analyzeduration": 120_000_000}
_ASKED = (
    "stream=index,codec_type,codec_name,width,height,sample_aspect_ratio,channels,sample_rate,avg_frame_rate"
    ",time_base,start_pts,nb_frames,duration:stream_disposition:stream_side_data=rotation,displaymatrix"
    ":stream_tags=title,name,handler_name:program_stream=index:format=format_name,duration"
)
# Of the files of `extract --audio`, which somebody has named: a video is never opened as one of these.
SOUND_CONTAINERS = ("wav", "flac")
_FIRST_S = 10
# A decoder works on as many pictures at once as it has threads, of which it takes 16 at most by itself.
_OWN_THREADS = 16
_PIXELS_AT_ONCE = 1 << 27
_FROM_KEY = ("select=key+not(isnan(prev_selected_t))",)  # no frame is selected yet, so there is no time of one
_MOST_CHANNELS = 64  # of an ffmpeg's filter
_PLACE = "file:"
# Where a stream of these begins at 0 and is read alone, ffmpeg moves its start there, unless the times are shifted.
_CORRECTED = ("mpegts", "mpeg", "flv", "wtv")
_SAID = {"nostdin": None, "hide_banner": None, "nostats": None, "loglevel": "repeat+level+info", "filter_threads": 4}


def to_probe(path: str, *, long_look: bool = False) -> list[str]:
    """Streams, programmes and format as JSON on stdout."""
    return _to_ask(path, _ASKED, "json=compact=1", long_look=long_look)


def to_first_frame(path: str, stream: int, num_packets: int, *, keys_only: bool, long_look: bool) -> list[str]:
    """What the first frames of a stream say of themselves, as JSON on stdout; key frames only are soon decoded."""
    asked = "frame=key_frame,sample_aspect_ratio:frame_side_data=displaymatrix"
    look = ["-select_streams", str(stream), "-read_intervals", f"%+#{num_packets}"]
    look += ["-skip_frame", "nokey"] if keys_only else []
    return _to_ask(path, asked, "json=compact=1", *look, long_look=long_look)


def to_count_packets(path: str) -> list[str]:
    """How many packets each stream has in the first seconds, as JSON on stdout."""
    words = ["-count_packets", "-read_intervals", f"%+{_FIRST_S}"]
    return _to_ask(path, "stream=index,nb_read_packets", "json=compact=1", *words)


def to_packets(path: str, asked: str, stream: int | None = None) -> list[str]:
    """A line for every packet (of one stream) on stdout, undecoded: what is `asked`, such as `pts_time,dts_time`."""
    words = [] if stream is None else ["-select_streams", str(stream)]
    return _to_ask(path, f"packet={asked}", "csv=p=0", *words, complaints="quiet")


def _to_ask(
    path: str, asked: str, form: str, *words: str, long_look: bool = False, complaints: str = "repeat+error"
) -> list[str]:
    options = [
        word
        for name, value in {**_SAFE, **(_LONG_LOOK if long_look else {})}.items()
        for word in (f"-{name}", str(value))
    ]
    how = ["-of", form, "-show_entries", asked, *words]
    return ["ffprobe", "-hide_banner", "-loglevel", complaints, *options, *how, f"file:{path}"]


def to_frames(info: VideoInfo, *, pixels: bool, version: str) -> list[str]:
    """Every decoded frame as RGB of the displayed size on stdout, or one grey byte; its PTS on stderr.

    The byte keeps one way of reading; ffmpeg's `null` output complains about frame rates.
    """
    threads = max(1, _PIXELS_AT_ONCE // (info.width_px * info.height_px))
    decoding: dict[str, int | None] = {"threads": threads} if threads < _OWN_THREADS else {}
    if info.turn:
        decoding["noautorotate"] = None  # ffmpeg 5 and newer would turn those pictures again that say it themselves
    shape = ["scale=1:1:flags=neighbor"]
    if pixels:
        # Both sizes and pixels' aspects can change in mid-stream (a phone that is turned, a broadcast's next
        # programme). No frame of the displayed size and shape is changed; others are fitted to the shape of the first
        # pixels, with black at the sides.
        width_px, height_px, aspect = info.width_px, info.height_px, info.pixel_aspect
        wide = f"(iw*(sar/({aspect.numerator}/{aspect.denominator})))"
        size = f"w='round(min({width_px},{height_px}*{wide}/ih))':h='round(min({height_px},{width_px}*ih/{wide}))'"
        pad = f"pad={width_px}:{height_px}:(ow-iw)/2:(oh-ih)/2:eval=frame"
        shape = [f"scale={size}:eval=frame", "format=rgb24", pad]
    return _compile(
        info,
        info.video_stream,
        decoding,
        vf=",".join([*(_FROM_KEY if info.from_key else ()), *info.turn, "showinfo=checksum=0", *shape]),
        pix_fmt="rgb24" if pixels else "gray",
        f="rawvideo",
        **{passthrough_option(version): "passthrough"},
    )


def to_samples(info: VideoInfo, stream: int, rate_hz: int = SAMPLE_RATE_HZ) -> list[str]:
    """Mono float32 of `rate_hz` on stdout; PTS, length and rate of every decoded frame on stderr.

    So is what the resampler gave: it loses what it holds where rate or layout change and it is built anew.
    """
    # Their mean, by number and not by place: what positions say is rarely so (microphones side by side), and some have
    # no place in mono. `<` shares the weight among those of the numbers that there are, also after a change in
    # mid-stream.
    every = "+".join(f"c{number}" for number in range(_MOST_CHANNELS))
    mono = f"aformat=sample_fmts=fltp,pan=mono|c0<{every},aresample={rate_hz},ashowinfo@resampled"
    # astats says how loud the channels were; what is much quieter in mono cancels out.
    loudness = "astats=measure_perchannel=none:measure_overall=RMS_level+Number_of_samples"
    chain = ",".join(["asettb=expr=1/sr", "ashowinfo", *([loudness] if info.audio_channels > 1 else []), mono])
    return _compile(info, stream, {}, af=chain, ac=1, ar=rate_hz, f="f32le")


def to_cut(info: VideoInfo, seconds: float, out: str) -> list[str]:
    """The first seconds of a video's picture and sound into a file, packets as they are."""
    streams = [f"0:{each}" for each in (info.video_stream, info.audio_stream) if each is not None]
    source = ffmpeg.input(_PLACE, **_SAID, **_SAFE)
    cut = ffmpeg.output(*(source[each[2:]] for each in streams), f"file:{out}", t=seconds, c="copy")
    compiled: list[str] = cut.compile()
    return [f"file:{info.path}" if word == _PLACE else word for word in compiled]


def to_drawn(info: VideoInfo, version: str, out: str, sound: str | None = None, *, h264: bool) -> list[str]:
    """Pictures with times, which come as raw Matroska on stdin, and the sound of a video, into an MP4.

    Times count from the video's origin, on both sides: 90 kHz hold those of all common rates. The sound is AAC, silence
    in its gaps; more channels than two are mixed down. `sound`: a wav file from the origin on in place of the video's.
    """
    words = ["ffmpeg", "-hide_banner", "-nostats", "-loglevel", "error", "-y", "-copyts"]
    words += ["-protocol_whitelist", "pipe", "-f", "matroska", "-i", "pipe:0"]
    if sound is not None:
        words += ["-protocol_whitelist", "file", "-f", "wav", "-i", f"file:{sound}", "-c:a", "aac", "-b:a", "192k"]
    elif info.audio_stream is not None:
        look = {**_SAFE, **(_LONG_LOOK if info.hard_to_probe else {})}
        words += [word for name, value in look.items() for word in (f"-{name}", str(value))]
        words += ["-itsoffset", f"{-info.origin_s:.6f}", "-vn", "-i", f"file:{info.path}"]
        words += ["-map", "0:v", "-map", f"1:{info.audio_stream}", "-c:a", "aac", "-b:a", "192k"]
        words += ["-af", "aresample=async=1", *(("-ac", "2") if info.audio_channels > 2 else ())]
    # Frames that refer to later ones would make lengths of a variable rate those of the order of decoding.
    picture = ("libx264", "-preset", "veryfast", "-crf", "20") if h264 else ("mpeg4", "-q:v", "3")
    words += ["-c:v", *picture, "-bf", "0", "-pix_fmt", "yuv420p"]
    words += [f"-{passthrough_option(version)}", "passthrough", "-enc_time_base", "1:90000"]
    return [*words, "-video_track_timescale", "90000", "-movflags", "+faststart", f"file:{out}"]


def shift_s(info: VideoInfo) -> int:
    """What the readers' arguments add to every time of this file, s."""
    return 1 if info.container in _CORRECTED else 0


def _compile(info: VideoInfo, stream: int, decoding: dict[str, int | None], **options: Any) -> list[str]:
    look = _LONG_LOOK if info.hard_to_probe else {}
    shifted = {"itsoffset": shift_s(info)} if shift_s(info) else {}
    safe = {**_SAFE, "format_whitelist": info.container} if info.container in SOUND_CONTAINERS else _SAFE
    source = ffmpeg.input(_PLACE, **_SAID, **safe, **look, **shifted, **decoding)[str(stream)]
    # One thread to write what is decoded: each more would hold a frame.
    compiled: list[str] = source.output("pipe:", copyts=None, flush_packets=1, threads=1, **options).compile()
    # ffmpeg-python hashes its words as UTF-8, which a file name need not be
    return [f"file:{info.path}" if word == _PLACE else word for word in compiled]


def passthrough_option(version: str) -> str:
    """The option by which this ffmpeg neither drops nor repeats frames."""
    # -fps_mode came with 5.1; builds from git have no number and are newer
    number = re.match(r"n?(\d+)\.(\d+)", version)
    return "vsync" if number and (int(number[1]), int(number[2])) < (5, 1) else "fps_mode"
