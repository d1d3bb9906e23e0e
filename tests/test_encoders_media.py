"""Sounds and videos as models take them, from samples and from real files."""

import io

import av
import numpy as np
import PIL.Image
import pytest
import scipy.io.wavfile

from grclip.encoders._media import UnreadableError, open_audio, open_video


def tone(rate, seconds=0.5, hertz=440.0):
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def write_video(file, frames, codec="ffv1", container="matroska"):
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())


@pytest.fixture
def frames():
    return np.stack([np.full((32, 48, 3), 10 * i, np.uint8) for i in range(20)])


class TestAudio:
    @pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
    def test_a_tone_keeps_its_pitch_and_loudness_at_another_rate(self, rate):
        found, expected = open_audio((tone(rate), rate), 16000), tone(16000)
        assert len(found) == len(expected)
        assert np.abs(found - expected)[200:-200].max() < 0.01
        assert found.dtype == np.float32

    def test_rates_of_any_number_type(self):
        for rate in (np.float32(8000), np.int64(8000), 8000.0):
            assert len(open_audio((tone(8000), rate), 16000)) == 8000

    def test_the_same_rate_changes_nothing(self):
        assert np.array_equal(open_audio((tone(8000), 8000), 8000), tone(8000).astype(np.float32))

    @pytest.mark.parametrize(
        ("dtype", "scale", "zero"), [(np.int16, 2**15, 0), (np.int32, 2**31, 0), (np.uint8, 2**7, 2**7)]
    )
    def test_whole_numbers_become_fractions_of_the_loudest(self, dtype, scale, zero):
        samples = (tone(8000) * (scale - 1) + zero).round().astype(dtype)
        assert np.abs(open_audio((samples, 8000), 8000) - tone(8000)).max() < 2 / scale + 1e-6

    @pytest.mark.parametrize("axis", [0, 1])
    def test_channels_are_mixed_whichever_way_they_lie(self, axis):
        stereo = np.stack([tone(8000), np.zeros(4000)], axis=axis)
        assert np.abs(open_audio((stereo, 8000), 8000) - tone(8000) / 2).max() < 1e-6

    def test_files_paths_and_bytes(self, tmp_path):
        samples = (tone(22050) * 20000).astype(np.int16)
        scipy.io.wavfile.write(tmp_path / "a.wav", 22050, samples)
        expected = open_audio((samples, 22050), 16000)
        content = (tmp_path / "a.wav").read_bytes()
        for value in (tmp_path / "a.wav", str(tmp_path / "a.wav"), content, io.BytesIO(content)):
            assert np.abs(open_audio(value, 16000) - expected).max() < 1e-6

    def test_a_compressed_stereo_file(self, tmp_path):
        with av.open(tmp_path / "a.flac", "w") as out:
            stream = out.add_stream("flac", rate=16000, layout="stereo")
            block = (np.stack([tone(16000), tone(16000)], axis=1) * 20000).astype(np.int16).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="stereo")
            frame.sample_rate = 16000
            out.mux(stream.encode(frame))
            out.mux(stream.encode())
        found = open_audio(tmp_path / "a.flac", 16000)
        assert np.abs(found - tone(16000) * 20000 / 2**15).max() < 1e-3

    @pytest.mark.parametrize("samples", [[], [np.nan, 0.0], [np.inf]])
    def test_samples_that_are_no_sound(self, samples):
        with pytest.raises(UnreadableError, match="the sound is empty, or holds NaN or infinity"):
            open_audio((np.array(samples), 8000), 8000)

    @pytest.mark.parametrize(
        ("samples", "rate"),
        [
            (np.zeros((2, 3, 4)), 8000),
            (np.zeros(3), 0),
            (np.zeros(3), np.inf),
            (np.array(["a"]), 8000),
            (np.zeros(3), "8"),
        ],
    )
    def test_values_of_another_shape_or_type(self, samples, rate):
        with pytest.raises(TypeError, match=r"expected \(samples, rate\)"):
            open_audio((samples, rate), 8000)
        with pytest.raises(TypeError, match=r"expected \(samples, rate\) or a path; got ndarray\[8\]"):
            open_audio(np.zeros(8), 8000)

    def test_files_without_sound(self, tmp_path, frames):
        (tmp_path / "junk.wav").write_bytes(b"junk")
        write_video(tmp_path / "v.mkv", frames)
        with pytest.raises(UnreadableError, match=r"cannot read '.*junk.wav'"):
            open_audio(tmp_path / "junk.wav", 8000)
        with pytest.raises(UnreadableError, match=r"cannot read '.*v.mkv': it has no sound"):
            open_audio(tmp_path / "v.mkv", 8000)
        with pytest.raises(UnreadableError, match="is a URL"):
            open_audio("http://127.0.0.1:9/a.wav", 8000)


class TestVideo:
    @pytest.mark.parametrize("n_frames", [1, 4, 8, 20, 33])
    def test_frames_are_evenly_spaced_whatever_they_come_as(self, tmp_path, frames, n_frames):
        write_video(tmp_path / "v.mkv", frames)
        expected = frames[np.linspace(0, 19, n_frames).round().astype(int)]
        pictures = [PIL.Image.fromarray(frame) for frame in frames]
        for value in (frames, list(frames), pictures, tmp_path / "v.mkv", (tmp_path / "v.mkv").read_bytes()):
            assert np.array_equal(open_video(value, n_frames), expected)

    def test_a_file_that_says_how_many_frames_it_has(self, tmp_path, frames):
        write_video(tmp_path / "v.mp4", frames, "mpeg4", "mp4")
        found = open_video(tmp_path / "v.mp4", 5)
        assert np.abs(found[:, 10, 10, 0] - frames[[0, 5, 10, 14, 19], 10, 10, 0].astype(int)).max() <= 6

    def test_a_file_cut_short_gives_the_frames_it_has(self, tmp_path, frames):
        noise = np.random.default_rng(0).integers(0, 255, (20, 32, 48, 3), dtype=np.uint8)
        write_video(tmp_path / "v.mkv", noise)
        content = (tmp_path / "v.mkv").read_bytes()
        found = open_video(content[: len(content) // 2], 4)
        assert np.array_equal(found[0], noise[0])
        assert len(found) == 4

    def test_a_playlist_reaches_nothing_on_a_network(self, tmp_path, unavailable):
        (tmp_path / "v.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{unavailable.url}/a.ts\n#EXT-X-ENDLIST\n")
        with pytest.raises(UnreadableError, match=r"cannot read '.*v.m3u8'"):
            open_video(tmp_path / "v.m3u8", 4)
        assert not unavailable.asked

    @pytest.mark.parametrize("sizes", [(8, 9)])
    def test_frames_of_several_sizes_are_no_video(self, sizes):
        with pytest.raises(UnreadableError, match="cannot read list: all input arrays must have the same shape"):
            open_video([np.zeros((size, size, 3), np.uint8) for size in sizes], 2)

    def test_what_is_no_video(self, tmp_path):
        (tmp_path / "junk.mp4").write_bytes(b"junk")
        scipy.io.wavfile.write(tmp_path / "a.wav", 8000, np.zeros(80, np.int16))
        with pytest.raises(UnreadableError, match=r"cannot read '.*junk.mp4'"):
            open_video(tmp_path / "junk.mp4", 4)
        with pytest.raises(UnreadableError, match="it has no pictures"):
            open_video(tmp_path / "a.wav", 4)
        for value in ([], np.zeros((4, 8, 8)), np.zeros((0, 8, 8, 3), np.uint8)):
            with pytest.raises(TypeError, match="expected a path, a list of pictures or uint8 frames"):
                open_video(value, 4)
        with pytest.raises(TypeError, match="expected a path, a binary file or frames; got int"):
            open_video(3, 4)
