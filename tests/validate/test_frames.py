"""Energies of two frames are never compared unless the user says so."""

import pytest

from mlip_deploy.artifact.contract import EnergyFrame
from mlip_deploy.errors import MLIPError
from mlip_deploy.reference_data.datasets import DATASETS, PBE, PBE_WITH_U, PBE_WITH_U_CORRECTED, R2SCAN
from mlip_deploy.validation.reference.frames import Agreement, agree, differing_terms, parse_request, same_zero

RAW_MODEL = EnergyFrame(functional="PBE (MPtrj)", hubbard_u="MP2020 values", corrections="none", dispersion="none")
OXIDE, METAL = frozenset({"Fe", "O"}), frozenset({"Fe"})
WBM = DATASETS["wbm"].energies


def decide(
    model: EnergyFrame, data: dict[str, EnergyFrame], text: str | None, *compositions: frozenset[str]
) -> Agreement:
    return agree(model, "a model", data, "some data", compositions or (OXIDE,), parse_request(text))


def test_raw_energies_fit_a_raw_model_and_the_report_says_so() -> None:
    agreement = decide(RAW_MODEL, WBM, None)
    assert (agreement.kind, agreement.judged, agreement.shift) == ("raw", True, False)
    assert "corrections: none" in agreement.note


def test_corrected_energies_are_refused_for_a_raw_model_with_the_way_back() -> None:
    with pytest.raises(MLIPError, match=r"differ in corrections.*model's frame too: --frame raw"):
        decide(RAW_MODEL, WBM, "mp2020")


def test_a_corrected_model_is_told_which_energies_fit() -> None:
    with pytest.raises(MLIPError, match=r"--frame mp2020$"):
        decide(PBE_WITH_U_CORRECTED, WBM, None)
    assert decide(PBE_WITH_U_CORRECTED, WBM, "mp2020").judged


def test_another_functional_is_refused_and_can_be_compared_without_a_verdict() -> None:
    with pytest.raises(MLIPError, match=r"differ in functional: .*r2SCAN.*--frame as-is"):
        decide(PBE, {"raw": R2SCAN}, None)
    agreement = decide(PBE, {"raw": R2SCAN}, "as-is")
    assert not agreement.judged
    assert "differs: functional" in agreement.note


def test_unknown_frames_need_a_word() -> None:
    with pytest.raises(
        MLIPError, match=r"the data's functional.*is unknown.*Declare what you know of the data: --frame functional=PBE"
    ):
        decide(PBE, {"raw": EnergyFrame.unknown()}, None)
    with pytest.raises(MLIPError, match=r"the model's functional.*--frame as-is") as refusal:
        decide(EnergyFrame.unknown(), {"raw": PBE}, None)
    assert f'--energy-frame "{PBE.declaration()}", or with what it was fine-tuned from' in str(refusal.value)
    assert "--frame functional" not in str(refusal.value), "the data are known"
    assert decide(EnergyFrame.parse(PBE.declaration()), {"raw": PBE}, None).judged, "what it says to type helps"
    with pytest.raises(MLIPError, match=r"the data's .* and the model's .*--frame functional=.*--energy-frame"):
        decide(EnergyFrame.unknown(), {"raw": EnergyFrame.unknown()}, None)
    declared = "functional=PBE,hubbard_u=none,corrections=none,dispersion=none"
    assert decide(PBE, {"raw": EnergyFrame.unknown()}, declared).judged
    as_is = decide(PBE, {"raw": EnergyFrame.unknown()}, "as-is")
    assert not as_is.judged
    assert as_is.note.endswith("; unknown: functional, hubbard_u, corrections, dispersion")
    assert decide(PBE, {"raw": PBE}, "as-is").note.endswith("; differs: nothing")


def test_a_frame_is_what_its_declaration_says() -> None:
    frame = PBE.model_copy(update={"functional": "PBE (MPtrj, sAlex)"})
    assert EnergyFrame.parse(frame.declaration()) == frame


def test_a_declaration_must_not_contradict_the_data() -> None:
    with pytest.raises(MLIPError, match="Leave the declaration out"):
        decide(PBE, {"raw": R2SCAN}, "functional=PBE,hubbard_u=none,corrections=none,dispersion=none")


def test_a_u_makes_a_difference_only_where_it_applies() -> None:
    assert differing_terms(PBE, PBE_WITH_U, [OXIDE]) == ["hubbard_u"]
    assert differing_terms(PBE, PBE_WITH_U, [METAL, frozenset({"Si", "O"})]) == []


def test_corrections_make_no_difference_to_elements() -> None:
    assert differing_terms(PBE_WITH_U, PBE_WITH_U_CORRECTED, [METAL]) == []
    assert differing_terms(PBE_WITH_U, PBE_WITH_U_CORRECTED, [METAL, OXIDE]) == ["corrections"]


def test_other_pseudopotentials_need_a_shift() -> None:
    arguments = (PBE, "a model", {"raw": PBE}, "mlearn-Si", [frozenset({"Si"})])
    with pytest.raises(MLIPError, match=r"other pseudopotentials.*--frame shift"):
        agree(*arguments, parse_request(None), same_potentials=False)
    assert agree(*arguments, parse_request("shift"), same_potentials=False).shift


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("functional=PBE", "needs the terms functional, hubbard_u, corrections, dispersion"),
        ("raw+mp2020", "names two kinds of energies"),
    ],
)
def test_a_wrong_request_says_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(MLIPError, match=message):
        parse_request(text)


def test_an_unknown_kind_lists_the_kinds() -> None:
    with pytest.raises(MLIPError, match="carries the energies: raw, mp2020"):
        decide(RAW_MODEL, WBM, "corrected")


def test_a_functional_names_its_zero_of_energy() -> None:
    matpes = PBE.model_copy(update={"functional": "PBE (MatPES)"})
    with pytest.raises(MLIPError, match=r"other pseudopotentials.*PBE \(MatPES\).*--frame shift"):
        decide(matpes, {"raw": PBE_WITH_U}, None, METAL)
    assert decide(matpes, {"raw": PBE_WITH_U}, "shift", METAL).shift
    assert same_zero("PBE (MPtrj, sAlex)", "PBE (MP)")
    assert same_zero("PBE (MatPES)", "PBE")
    assert not same_zero("PBE (OMat24)", "PBE (MPtrj)")
