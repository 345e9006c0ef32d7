"""Comparison of networks over several trainings, each of which counts as a reader.

A multi-reader multi-case analysis asks whether a difference holds for other readers and other
patients. Here the readers are trainings with different seeds, and the cases are patches, grouped
by scan. The model is that of Obuchowski and Rockette (1995), "Hypothesis testing of diagnostic
accuracy for multiple readers and multiple tests", Communications in Statistics 24:285-308, with
the F test and degrees of freedom of Hillis (2014), "A marginal-mean ANOVA approach for analyzing
multireader multicase radiological imaging data", Statistics in Medicine 33:330-360, for random
readers and random cases.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from nodules.statistics.estimate import Estimate


@dataclass(frozen=True)
class VarianceComponents:
    """Where the variance of an AUC comes from.

    Attributes
    ----------
    reader
        Variance of the true AUC between readers, common to all networks.
    network_reader
        Variance of the true AUC between the readers of one network, beyond `reader`.
    error
        Variance of an AUC due to the choice of cases.
    same_reader, same_network, neither
        Covariances of two AUCs due to the choice of cases: of two networks with the same reader, of
        two readers of one network, and of two readers of two networks. The literature calls them
        Cov1, Cov2 and Cov3.
    """

    reader: float
    network_reader: float
    error: float
    same_reader: float
    same_network: float
    neither: float


@dataclass(frozen=True)
class MultiReaderTest:
    """Test that all networks have the same mean AUC over readers.

    Attributes
    ----------
    means
        (T,) mean AUC of each network over its readers.
    components
        Variance components.
    network_mean_square, interaction_mean_square
        Mean squares of the networks and of the interaction of networks and readers.
    f, numerator_df, denominator_df, p_value
        The F test.
    standard_error
        Of the difference of two means.
    """

    means: NDArray[np.float64]
    components: VarianceComponents
    network_mean_square: float
    interaction_mean_square: float
    f: float
    numerator_df: int
    denominator_df: float
    p_value: float
    standard_error: float

    def difference(self, baseline: int, candidate: int, *, confidence: float) -> Estimate:
        """Return the candidate's mean AUC minus the baseline's, with its interval."""
        value = float(self.means[candidate] - self.means[baseline])
        quantile = float(t_distribution.ppf((1 + confidence) / 2, self.denominator_df))
        return Estimate(
            value, value - quantile * self.standard_error, value + quantile * self.standard_error
        )


def multi_reader_test(
    aucs: NDArray[np.float64],
    covariance: NDArray[np.float64],
    *,
    cases_df: float = np.inf,
) -> MultiReaderTest:
    """Test whether networks differ with random readers and random cases.

    Parameters
    ----------
    aucs
        (T, R) AUCs of T networks with R readers each, at least two of both.
    covariance
        (T * R, T * R) covariance of the AUCs due to the choice of cases, in the order of
        `aucs.ravel()`.
    cases_df
        Degrees of freedom of `covariance`. With the default, the published analysis, it is taken as
        known. With few cases it is not, and the denominator's degrees of freedom follow from
        Satterthwaite's approximation with both of its terms.

    Returns
    -------
    MultiReaderTest
    """
    networks, readers = aucs.shape
    by_network, by_reader, overall = aucs.mean(axis=1), aucs.mean(axis=0), aucs.mean()
    residuals = aucs - by_network[:, None] - by_reader + overall
    interaction_df = (networks - 1) * (readers - 1)
    network_square = readers * float(((by_network - overall) ** 2).sum()) / (networks - 1)
    reader_square = networks * float(((by_reader - overall) ** 2).sum()) / (readers - 1)
    interaction_square = float((residuals**2).sum()) / interaction_df

    network, reader = (each.ravel() for each in np.indices(aucs.shape))
    same_network = network[:, None] == network
    same_reader = reader[:, None] == reader
    error = float(covariance[same_network & same_reader].mean())
    cov1 = float(covariance[~same_network & same_reader].mean())
    cov2 = float(covariance[same_network & ~same_reader].mean())
    cov3 = float(covariance[~same_network & ~same_reader].mean())
    # The difference of two estimates may be negative, the quantity itself is not.
    common = max(cov2 - cov3, 0.0)
    denominator = interaction_square + readers * common
    uncertainty = interaction_square**2 / interaction_df + (readers * common) ** 2 / cases_df
    degrees_of_freedom = denominator**2 / uncertainty
    statistic = network_square / denominator
    return MultiReaderTest(
        means=by_network,
        components=VarianceComponents(
            reader=(reader_square - interaction_square) / networks - cov1 + cov3,
            network_reader=interaction_square - error + cov1 + common,
            error=error,
            same_reader=cov1,
            same_network=cov2,
            neither=cov3,
        ),
        network_mean_square=network_square,
        interaction_mean_square=interaction_square,
        f=statistic,
        numerator_df=networks - 1,
        denominator_df=degrees_of_freedom,
        p_value=float(f_distribution.sf(statistic, networks - 1, degrees_of_freedom)),
        standard_error=float(np.sqrt(2 * denominator / readers)),
    )
