"""Fréchet distance against closed forms and scipy; its behaviour on singular and refused input."""

import numpy as np
import pytest
import scipy.linalg

from model.metrics.frechet import Gaussian, frechet_distance, svfid


def random_spd(rng, dims, rank=None):
    factor = rng.standard_normal((dims, rank or 2 * dims))
    return factor @ factor.T / dims


def gaussian(mean, cov):
    return Gaussian(mean=np.asarray(mean, dtype=np.float64), cov=np.asarray(cov, dtype=np.float64))


def test_equal_covariances_leave_the_squared_distance_of_the_means():
    rng = np.random.default_rng(0)
    cov = random_spd(rng, 80)
    shift = rng.standard_normal(80)
    assert frechet_distance(gaussian(np.zeros(80), cov), gaussian(shift, cov)) == pytest.approx(
        np.sum(shift**2), rel=1e-10
    )


def test_diagonal_covariances_match_the_closed_form():
    rng = np.random.default_rng(1)
    a, b, shift = rng.uniform(0.01, 9.0, 40), rng.uniform(0.01, 9.0, 40), rng.standard_normal(40)
    expected = np.sum(shift**2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert frechet_distance(gaussian(shift, np.diag(a)), gaussian(np.zeros(40), np.diag(b))) == pytest.approx(
        expected, rel=1e-10
    )


def test_commuting_covariances_match_the_closed_form_in_any_basis():
    rng = np.random.default_rng(2)
    axes = scipy.linalg.qr(rng.standard_normal((30, 30)))[0]
    a, b = rng.uniform(0.01, 9.0, 30), rng.uniform(0.01, 9.0, 30)
    left, right = (gaussian(np.zeros(30), axes @ np.diag(d) @ axes.T) for d in (a, b))
    assert frechet_distance(left, right) == pytest.approx(np.sum((np.sqrt(a) - np.sqrt(b)) ** 2), rel=1e-9)


def test_one_dimension():
    # (3 - 1)^2 + (2 - 5)^2 for N(3, 2^2) and N(1, 5^2)
    assert frechet_distance(gaussian([3.0], [[4.0]]), gaussian([1.0], [[25.0]])) == pytest.approx(13.0, rel=1e-12)


@pytest.mark.parametrize("dims", [2, 17, 80])
def test_agrees_with_scipy_sqrtm_and_is_symmetric(dims):
    rng = np.random.default_rng(dims)
    for _ in range(3):
        a = gaussian(rng.standard_normal(dims), random_spd(rng, dims))
        b = gaussian(rng.standard_normal(dims), random_spd(rng, dims))
        root = scipy.linalg.sqrtm(a.cov @ b.cov)
        expected = np.sum((a.mean - b.mean) ** 2) + np.trace(a.cov + b.cov - 2.0 * np.real(root))
        assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
        assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-10)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("rank", [1, 5, 80, None])
def test_equal_gaussians_are_at_zero_whatever_their_rank_and_scale(rank, scale):
    rng = np.random.default_rng(3)
    cov = random_spd(rng, 80, rank) * scale
    distance = frechet_distance(gaussian(np.ones(80), cov), gaussian(np.ones(80), cov))
    assert 0.0 <= distance <= 1e-12 * np.trace(cov)


def test_singular_covariances_match_the_closed_form():
    # Two directions u and v: √(uuᵀ) = uuᵀ/|u| and the trace term is |u·v|.
    rng = np.random.default_rng(4)
    u, v = rng.standard_normal(60), rng.standard_normal(60)
    expected = u @ u + v @ v - 2.0 * abs(u @ v)
    left, right = gaussian(np.zeros(60), np.outer(u, u)), gaussian(np.zeros(60), np.outer(v, v))
    # √ of an eigenvalue that is 0 only up to 1e-16 is 1e-8: this is where half the digits are lost.
    assert frechet_distance(left, right) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(left, gaussian(np.zeros(60), np.zeros((60, 60)))) == pytest.approx(u @ u, rel=1e-10)


def test_fit_is_numpys_mean_and_unbiased_covariance_in_float64():
    vectors = np.random.default_rng(5).standard_normal((200, 12)).astype(np.float32) + 1000.0
    fitted = Gaussian.fit(vectors)
    assert fitted.mean.dtype == fitted.cov.dtype == np.float64
    np.testing.assert_allclose(fitted.mean, vectors.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(fitted.cov, np.cov(vectors.astype(np.float64), rowvar=False), rtol=1e-9, atol=1e-12)


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


@pytest.mark.parametrize(
    ("mean", "cov", "words"),
    [
        ([0.0], [[1.0]], "dimensions"),
        ([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]], "not symmetric"),
        ([0.0, 0.0], [[1.0, 0.0], [0.0, -1.0]], "not positive semidefinite"),
        ([0.0, 0.0], [[np.nan, 0.0], [0.0, 1.0]], "NaN"),
    ],
)
def test_distance_refuses(mean, cov, words):
    with pytest.raises(ValueError, match=words):
        frechet_distance(gaussian(mean, cov), gaussian([0.0, 0.0], np.eye(2)))


def test_fewer_vectors_than_dimensions_only_where_it_is_meant():
    """98 vectors of 512: 0 from themselves, else as the vectors' singular values say, which need no covariance."""
    rng = np.random.default_rng(9)
    a, b = rng.gamma(0.5, size=(98, 512)), rng.gamma(0.6, size=(98, 512)) @ np.diag(rng.uniform(0.5, 1.5, 512))
    with pytest.raises(ValueError, match="at least 513"):
        Gaussian.fit(a)
    with pytest.raises(ValueError, match="at least 2"):
        Gaussian.fit(a[:1], rank_deficient=True)
    left, right = Gaussian.fit(a, rank_deficient=True), Gaussian.fit(b, rank_deficient=True)
    assert frechet_distance(left, left) <= 1e-12 * np.trace(left.cov)
    centred_a, centred_b = ((v - v.mean(0)) / np.sqrt(97) for v in (a, b))
    nuclear = np.linalg.svd(centred_a @ centred_b.T, compute_uv=False).sum()
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.sum(centred_a**2) + np.sum(centred_b**2) - 2 * nuclear
    assert frechet_distance(left, right) == pytest.approx(expected, rel=1e-5)


class PixelFeatures:
    """The colour of every pixel: features whose Gaussian is known without a network."""

    name = "pixels"
    rank_deficient = False

    def __call__(self, video_cthw):
        return np.asarray(video_cthw, dtype=np.float64).reshape(3, -1).T


def test_svfid_is_the_mean_over_samples_and_carries_the_features_name():
    real = np.random.default_rng(7).uniform(-0.5, 0.5, (3, 4, 8, 8))
    result = svfid(real, np.stack([real, real + 0.1, real - 0.3]), PixelFeatures())
    assert result.per_sample == pytest.approx((0.0, 3 * 0.1**2, 3 * 0.3**2), abs=1e-12)
    assert result.mean == pytest.approx(0.1, abs=1e-12)
    assert result.features == "pixels"


def test_svfid_takes_samples_one_by_one_and_of_any_size_but_not_none():
    real = np.random.default_rng(8).uniform(-0.5, 0.5, (3, 4, 8, 8))
    result = svfid(real, (sample for sample in (real, np.tile(real, (1, 1, 2, 3)))), PixelFeatures())
    assert len(result.per_sample) == 2
    with pytest.raises(ValueError, match="at least one sample"):
        svfid(real, np.empty((0, 3, 4, 8, 8)), PixelFeatures())
