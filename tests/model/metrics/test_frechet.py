"""Fréchet distance against closed forms, scipy and torchmetrics; its behaviour on singular and refused input."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from model.metrics.fid import embeddings, fid
from model.metrics.frechet import Gaussian, frechet_distance
from model.metrics.svfid import RealClip, sifid, svfid


def random_root(rng, dims, rank=None):
    """A root of a random covariance of that rank."""
    return rng.standard_normal((rank or 2 * dims, dims)) / np.sqrt(dims)


def gaussian(mean, root):
    return Gaussian(mean=np.asarray(mean, dtype=np.float64), root=np.asarray(root, dtype=np.float64))


def test_equal_covariances_leave_the_squared_distance_of_the_means():
    rng = np.random.default_rng(0)
    root, shift = random_root(rng, 80), rng.standard_normal(80)
    assert frechet_distance(gaussian(np.zeros(80), root), gaussian(shift, root)) == pytest.approx(
        np.sum(shift**2), rel=1e-10
    )


def test_diagonal_covariances_match_the_closed_form():
    rng = np.random.default_rng(1)
    a, b, shift = rng.uniform(0.1, 3.0, 40), rng.uniform(0.1, 3.0, 40), rng.standard_normal(40)
    expected = np.sum(shift**2) + np.sum((a - b) ** 2)  # a and b are standard deviations
    assert frechet_distance(gaussian(shift, np.diag(a)), gaussian(np.zeros(40), np.diag(b))) == pytest.approx(
        expected, rel=1e-10
    )


def test_commuting_covariances_match_the_closed_form_in_any_basis_and_for_any_root():
    rng = np.random.default_rng(2)
    axes = scipy.linalg.qr(rng.standard_normal((30, 30)))[0]
    turned = scipy.linalg.qr(rng.standard_normal((30, 30)))[0]  # Q R is a root of RᵀR too
    a, b = rng.uniform(0.1, 3.0, 30), rng.uniform(0.1, 3.0, 30)
    left, right = gaussian(np.zeros(30), np.diag(a) @ axes.T), gaussian(np.zeros(30), turned @ np.diag(b) @ axes.T)
    assert frechet_distance(left, right) == pytest.approx(np.sum((a - b) ** 2), rel=1e-9)


def test_one_dimension():
    # (3 - 1)^2 + (2 - 5)^2 for N(3, 2^2) and N(1, 5^2)
    assert frechet_distance(gaussian([3.0], [[2.0]]), gaussian([1.0], [[5.0]])) == pytest.approx(13.0, rel=1e-12)


@pytest.mark.parametrize("dims", [2, 17, 80])
def test_agrees_with_scipy_sqrtm_and_is_symmetric(dims):
    rng = np.random.default_rng(dims)
    for _ in range(3):
        a = gaussian(rng.standard_normal(dims), random_root(rng, dims))
        b = gaussian(rng.standard_normal(dims), random_root(rng, dims))
        cov_a, cov_b = a.root.T @ a.root, b.root.T @ b.root
        root = scipy.linalg.sqrtm(cov_a @ cov_b)
        expected = np.sum((a.mean - b.mean) ** 2) + np.trace(cov_a + cov_b - 2.0 * np.real(root))
        assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
        assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-10)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("rank", [1, 5, 80, None])
def test_equal_gaussians_are_at_zero_whatever_their_rank_and_scale(rank, scale):
    root = random_root(np.random.default_rng(3), 80, rank) * scale
    distance = frechet_distance(gaussian(np.ones(80), root), gaussian(np.ones(80), root))
    assert 0.0 <= distance <= 1e-12 * np.sum(root**2)


def test_singular_covariances_match_the_closed_form():
    # Two directions u and v: √(uuᵀ) = uuᵀ/|u| and the trace term is |u·v|.
    rng = np.random.default_rng(4)
    u, v = rng.standard_normal(60), rng.standard_normal(60)
    expected = u @ u + v @ v - 2.0 * abs(u @ v)
    left, right = gaussian(np.zeros(60), u[None]), gaussian(np.zeros(60), v[None])
    assert frechet_distance(left, right) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(left, gaussian(np.zeros(60), np.zeros((1, 60)))) == pytest.approx(u @ u, rel=1e-12)


def test_fewer_vectors_than_dimensions_match_the_closed_form():
    # Vectors of 512 numbers that lie in a subspace of 7 dimensions: the distance is the one within the subspace.
    rng = np.random.default_rng(9)
    axes = scipy.linalg.qr(rng.standard_normal((512, 7)), mode="economic")[0]
    a, b = rng.standard_normal((50, 7)), 2.0 + 3.0 * rng.standard_normal((98, 7))
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T))
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(np.cov(a.T) + np.cov(b.T) - 2.0 * np.real(root))
    left, right = (Gaussian.fit(x @ axes.T, rank_deficient=True) for x in (a, b))
    assert frechet_distance(left, right) == pytest.approx(expected, rel=1e-9)


def test_fit_is_numpys_mean_and_unbiased_covariance_in_float64():
    vectors = np.random.default_rng(5).standard_normal((200, 12)).astype(np.float32) + 1000.0
    fitted = Gaussian.fit(vectors)
    assert fitted.mean.dtype == fitted.root.dtype == np.float64
    np.testing.assert_allclose(fitted.mean, vectors.astype(np.float64).mean(0), rtol=1e-12)
    expected = np.cov(vectors.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(fitted.root.T @ fitted.root, expected, rtol=1e-9, atol=1e-12)


def test_fitted_gaussians_come_close_to_the_distance_of_the_distributions():
    rng = np.random.default_rng(6)
    left = Gaussian.fit(rng.normal(0.0, 1.0, (200_000, 3)))
    right = Gaussian.fit(rng.normal(2.0, 3.0, (200_000, 3)))
    assert frechet_distance(left, right) == pytest.approx(3 * (2.0**2 + (3.0 - 1.0) ** 2), rel=0.02)


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        (np.zeros((80, 80)), "80 vectors of 80 dimensions.* at least 81"),
        (np.zeros(80), r"\(n, D\)"),
        (np.full((100, 3), np.nan), "NaN"),
    ],
)
def test_fit_refuses(vectors, words):
    with pytest.raises(ValueError, match=words):
        Gaussian.fit(vectors)


def test_a_rank_deficient_fit_must_be_asked_for_and_needs_two_vectors():
    with pytest.raises(ValueError, match=r"1 vectors of 3 dimensions.* at least 2"):
        Gaussian.fit(np.zeros((1, 3)), rank_deficient=True)
    few = np.random.default_rng(17).uniform(-0.5, 0.5, (3, 1, 1, 3))  # 3 locations of 3 numbers
    with pytest.raises(ValueError, match="at least 4"):
        RealClip([few], PixelFeatures())
    features = PixelFeatures(rank_deficient=True)
    result = svfid(RealClip([few], features), [few + 0.2])
    assert result.mean == pytest.approx(3 * 0.2**2, rel=1e-9)


@pytest.mark.parametrize(
    ("mean", "root", "words"),
    [
        ([0.0], [[1.0]], "1 and 2 dimensions"),
        ([0.0, 0.0], [[np.nan, 0.0], [0.0, 1.0]], "NaN"),
        ([0.0, np.inf], np.eye(2), "infinite"),
    ],
)
def test_distance_refuses(mean, root, words):
    with pytest.raises(ValueError, match=words):
        frechet_distance(gaussian(mean, root), gaussian([0.0, 0.0], np.eye(2)))


def test_fewer_vectors_than_dimensions_only_where_it_is_meant():
    """98 vectors of 512: 0 from themselves, else as the vectors' singular values say, which need no covariance."""
    rng = np.random.default_rng(9)
    a, b = rng.gamma(0.5, size=(98, 512)), rng.gamma(0.6, size=(98, 512)) @ np.diag(rng.uniform(0.5, 1.5, 512))
    with pytest.raises(ValueError, match="at least 513"):
        Gaussian.fit(a)
    with pytest.raises(ValueError, match="at least 2"):
        Gaussian.fit(a[:1], rank_deficient=True)
    left, right = Gaussian.fit(a, rank_deficient=True), Gaussian.fit(b, rank_deficient=True)
    assert frechet_distance(left, left) <= 1e-12 * np.sum(left.root**2)
    centred_a, centred_b = ((v - v.mean(0)) / np.sqrt(97) for v in (a, b))
    nuclear = np.linalg.svd(centred_a @ centred_b.T, compute_uv=False).sum()
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.sum(centred_a**2) + np.sum(centred_b**2) - 2 * nuclear
    assert frechet_distance(left, right) == pytest.approx(expected, rel=1e-5)


class PixelFeatures:
    """The colour of every pixel: features whose Gaussian is known without a network."""

    name = "pixels"

    def __init__(self, rank_deficient=False, of_images=False):
        self.rank_deficient, self.of_images, self.calls = rank_deficient, of_images, 0

    def __call__(self, video_cthw):
        assert video_cthw.ndim == 4
        self.calls += 1
        return np.asarray(video_cthw, dtype=np.float64).reshape(3, -1).T


def test_svfid_is_the_mean_over_samples_and_carries_the_features_name():
    real = np.random.default_rng(7).uniform(-0.5, 0.5, (3, 4, 8, 8))
    result = svfid(RealClip([real], PixelFeatures()), np.stack([real, real + 0.1, real - 0.3]))
    assert result.per_sample == pytest.approx((0.0, 3 * 0.1**2, 3 * 0.3**2), abs=1e-12)
    assert result.mean == pytest.approx(0.1, abs=1e-12)
    assert result.features == "pixels"


def test_features_of_images_hold_each_frame_against_the_one_at_its_place():
    real = np.random.default_rng(7).uniform(-0.5, 0.5, (3, 4, 8, 8))
    clip = RealClip([real], PixelFeatures(of_images=True))
    assert clip.metric == "sifid_pixels" and RealClip([real], PixelFeatures()).metric == "svfid_pixels"
    one_is_brighter = real + np.array([0, 0, 0.2, 0]).reshape(4, 1, 1)
    assert clip.distance(one_is_brighter) == pytest.approx(3 * 0.2**2 / 4, abs=1e-12)
    backwards = real[:, ::-1]
    frames = [sifid(real[:, t], [backwards[:, t]], PixelFeatures()).mean for t in range(4)]
    assert clip.distance(backwards) == pytest.approx(np.mean(frames)) and min(frames) > 1e-4
    assert RealClip([real], PixelFeatures()).distance(backwards) < 1e-12
    with pytest.raises(ValueError, match="3 frames cannot be held against 4"):
        clip.distance(real[:, :3])


def test_svfid_takes_samples_one_by_one_and_of_any_size_but_not_none():
    real = np.random.default_rng(8).uniform(-0.5, 0.5, (3, 4, 8, 8))
    clip = RealClip([real], PixelFeatures())
    result = svfid(clip, (sample for sample in (real, np.tile(real, (1, 1, 2, 3)))))
    assert len(result.per_sample) == 2
    with pytest.raises(ValueError, match="at least one sample"):
        svfid(clip, np.empty((0, 3, 4, 8, 8)))


def test_the_real_clips_features_are_computed_once():
    samples = np.random.default_rng(10).uniform(-0.5, 0.5, (3, 3, 4, 8, 8))
    features = PixelFeatures()
    real = RealClip([samples[0]], features)
    svfid(real, samples)
    svfid(real, samples[:2])
    assert features.calls == 1 + 3 + 2


def test_sifid_is_the_same_of_images():
    real = np.random.default_rng(11).uniform(-0.5, 0.5, (3, 9, 8))
    result = sifid(real, np.stack([real, real + 0.1, real - 0.3]), PixelFeatures())
    assert result.per_sample == pytest.approx((0.0, 3 * 0.1**2, 3 * 0.3**2), abs=1e-12)
    assert (result.mean, result.features) == (pytest.approx(0.1, abs=1e-12), "pixels")
    with pytest.raises(ValueError, match="at least one sample"):
        sifid(real, [], PixelFeatures())
    with pytest.raises(ValueError, match=r"image must be \(3, H, W\), got \(3, 1, 9, 8\)"):
        sifid(real, [real[:, None]], PixelFeatures())


def torchmetrics_fid(samples, test_set):
    """FID of vectors, by torchmetrics."""
    passed_on = torch.nn.Identity()
    passed_on.num_features = samples.shape[1]
    metric = FrechetInceptionDistance(feature=passed_on).set_dtype(torch.float64)
    metric.update(torch.from_numpy(samples), real=False)
    metric.update(torch.from_numpy(test_set), real=True)
    return metric.compute().item()


def test_fid_of_all_features_is_torchmetrics():
    rng = np.random.default_rng(12)
    samples, test_set = rng.standard_normal((60, 50)), 0.5 + 2.0 * rng.standard_normal((200, 50))
    result = fid(samples, test_set, drawn=50, trials=3)
    assert result.mean == pytest.approx(torchmetrics_fid(samples, test_set), rel=1e-8)
    assert result.std == pytest.approx(0.0, abs=1e-9 * result.mean)  # all of 50, three times


def test_fid_of_one_feature_a_trial_is_the_mean_and_spread_of_the_closed_form():
    # A feature's distance is (mean difference)² + (std difference)². Over many trials each feature is drawn as often.
    rng = np.random.default_rng(13)
    samples, test_set = rng.standard_normal((30, 8)), rng.normal(1.0, 3.0, (90, 8)) * np.arange(1, 9)
    means = samples.mean(0) - test_set.mean(0)
    each = means**2 + (samples.std(0, ddof=1) - test_set.std(0, ddof=1)) ** 2
    result = fid(samples, test_set, drawn=1, trials=4000, seed=1)
    assert result.mean == pytest.approx(each.mean(), abs=5 * each.std() / np.sqrt(4000))
    assert result.std == pytest.approx(each.std(), rel=0.1)
    one = fid(samples, test_set, drawn=1, trials=1)
    assert np.isclose(each, one.mean, rtol=1e-9).any() and one.std == 0.0


def test_fid_draws_the_same_features_of_both_sides_each_once():
    # The samples are the test set: 0 only if features are matched. Ten shifts, powers of 2: each one's square once.
    vectors = np.random.default_rng(14).standard_normal((50, 512)) * np.geomspace(1, 100, 512)
    same = fid(vectors, vectors)
    assert 0.0 <= same.mean < 1e-6
    shifted = fid(vectors[:, :10], vectors[:, :10] + 2.0 ** np.arange(10), drawn=10, trials=4)
    assert shifted.mean == pytest.approx(sum(4.0**k for k in range(10)), rel=1e-9)


def test_papers_fid_50_samples_on_50_of_512_features_is_right_though_a_dimension_is_missing():
    # A.3's own numbers: 50 vectors span 49 dimensions. 1e-6 is what eigenvalues of a singular product are good for.
    rng = np.random.default_rng(15)
    mixing = rng.standard_normal((512, 512))
    samples, test_set = rng.standard_normal((50, 512)) @ mixing, 3.0 + rng.standard_normal((300, 512)) @ mixing
    draws = np.random.default_rng(5)
    chosen = [draws.choice(512, 50, replace=False) for _ in range(50)]
    expected = [torchmetrics_fid(samples[:, some], test_set[:, some]) for some in chosen]
    result = fid(samples, test_set, seed=5)
    assert result.mean == pytest.approx(np.mean(expected), rel=1e-6)
    assert result.std == pytest.approx(np.std(expected), rel=1e-4)
    assert fid(samples, test_set, seed=5) == result
    assert fid(samples, test_set, seed=6).mean != result.mean


@pytest.mark.parametrize(
    ("samples", "test_set", "settings", "words"),
    [
        (np.ones((50, 512)), np.ones((60, 500)), {}, r"\(50, 512\) and \(60, 500\)"),
        (np.ones((20, 512)), np.ones((60, 512)), {}, "50 features a trial of 512, with 20 samples.* draw 1 to 20"),
        (np.ones((50, 40)), np.ones((60, 40)), {}, "50 features a trial of 40.* draw 1 to 40"),
        (np.ones((50, 512)), np.ones((60, 512)), {"drawn": 0}, "draw 1 to 50"),
        (np.ones((50, 512)), np.ones((60, 512)), {"trials": 0}, "at least one trial"),
        (np.full((50, 512), np.nan), np.ones((60, 512)), {}, "NaN"),
        (np.ones((50, 512)), np.ones(512), {}, r"\(n, D\)"),
        (np.ones((50, 512)), np.ones((0, 512)), {}, "0 test videos"),
        (np.ones((1, 512)), np.ones((60, 512)), {"drawn": 1}, "at least 2"),
    ],
)
def test_fid_refuses(samples, test_set, settings, words):
    with pytest.raises(ValueError, match=words):
        fid(samples, test_set, **settings)


def test_an_embedding_is_the_mean_over_a_videos_locations():
    videos = np.random.default_rng(16).uniform(-1, 1, (4, 3, 2, 5, 6))
    np.testing.assert_allclose(embeddings(videos, PixelFeatures()), videos.mean(axis=(2, 3, 4)), rtol=1e-12)
    with pytest.raises(ValueError, match="no video"):
        embeddings([], PixelFeatures())
