"""The multi-reader analysis against a published one, and against formulas by hand."""

import numpy as np
import pytest

from nodules.statistics.auc_tests import correlated_aucs
from nodules.statistics.multi_reader import multi_reader_test

# Ratings of 69 patients without and 45 with aortic dissection by five readers, each with two kinds
# of MRI, from Van Dyke et al. (1993): the standard example of the method.
READERS = 5
RATINGS = (
    (
        "122151111111411111111131311214111113121211233131133111111221111332111",
        "555545554555434245555555154454553555115554451",
    ),
    (
        "232222222322522232222222422223222222222222222222222222222432232222222",
        "535555542555442225555555243354552425225555352",
    ),
    (
        "222235112242422232221232411322112224121412112222223211211221151421212",
        "545555555555542355555555252255552555225555552",
    ),
    (
        "111111311111111111112111211112111111111111111111331111111111111311111",
        "555555555555555155555555554544553555125555555",
    ),
    (
        "351211112221211122113221111211211231221113332111211111111341231212113",
        "525255551545452235555554144322151515115553552",
    ),
    (
        "333222223213122222211111421312214323123122233111333113412421241442111",
        "535555554555544335555555355355554455535555551",
    ),
    (
        "322222223222222122221222322222212212222231223222222222322322222222122",
        "535555552555344245455545252355532425525555552",
    ),
    (
        "242222322211132222121121411512112122212221132111233113221232341242121",
        "525555555555354145555555253355543555534555551",
    ),
    (
        "221111312111122111211111321212111122112111112121212211111212111323211",
        "545555554555455555555555455445555555535555555",
    ),
    (
        "223122221222111222122212322321212222112121132122332122221222231233111",
        "525455555455343335555555251332532545533555553",
    ),
)


def van_dyke() -> tuple[np.ndarray, np.ndarray]:
    ratings = np.array([[float(rating) for rating in without + ill] for without, ill in RATINGS])
    return (np.arange(114) >= 69).astype(np.uint8), ratings


def test_the_published_analysis_is_reproduced() -> None:
    measured = correlated_aucs(*van_dyke())
    result = multi_reader_test(measured.aucs.reshape(2, READERS), measured.covariance)
    assert result.means == pytest.approx([0.8970370, 0.9408374], abs=1e-7)
    components = result.components
    assert components.reader == pytest.approx(0.0015364254, abs=1e-10)
    assert components.network_reader == pytest.approx(0.0002045840, abs=1e-10)
    assert components.error == pytest.approx(0.0007921325, abs=1e-10)
    covariances = components.same_reader, components.same_network, components.neither
    assert covariances == pytest.approx([0.0003420090, 0.0003395265, 0.0002358497], abs=1e-10)
    assert result.network_mean_square == pytest.approx(0.004796171, abs=1e-9)
    assert result.interaction_mean_square == pytest.approx(0.0005510306, abs=1e-10)
    assert result.f == pytest.approx(4.484854, abs=1e-6)
    assert (result.numerator_df, result.denominator_df) == pytest.approx((1, 15.06611), abs=1e-5)
    assert result.p_value == pytest.approx(0.05123303, abs=1e-8)
    assert result.standard_error == pytest.approx(0.0206825, abs=1e-7)
    interval = result.difference(1, 0, confidence=0.95)
    expected = (-0.04380032, -0.0878671960, 0.0002665519)
    assert tuple(interval) == pytest.approx(expected, abs=1e-8)
