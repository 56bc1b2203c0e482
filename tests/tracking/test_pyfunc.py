"""A logged bundle: one file, two flavours, image files in and class names out."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import mlflow
import numpy as np
import onnx
import pandas as pd
import pytest
import yaml
from fake_bundle import CLASSES, SIZE, fake_bundle, probabilities
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image
from tracked import picture, scoring_server, start

from scenetrack import tracking
from scenetrack.data.images import load_images
from scenetrack.delivery.inference import SceneClassifier
from scenetrack.errors import DataError, ModelError
from scenetrack.graphs.runtime import OnnxModel

RED, BLUE = picture((250, 10, 20)), picture((5, 5, 200), "JPEG")
METADATA = {"kind": "bundle", "classes": json.dumps(CLASSES)}


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_bundle(tmp_path_factory.mktemp("bundle") / "scene.onnx")


@pytest.fixture(scope="module")
def classifier(bundle: Path) -> SceneClassifier:
    return SceneClassifier(bundle)


class TestSceneClassifier:
    def test_bytes_and_texts_of_every_form_are_the_same_image(
        self, classifier: SceneClassifier
    ) -> None:
        lines = "\n".join([text(RED)[:30], text(RED)[30:]])
        url = f"data:image/png;base64,{text(RED)}"
        forms = [RED, bytearray(RED), memoryview(RED), text(RED), lines, url]
        predictions = classifier.classify(forms)
        assert {prediction.label for prediction in predictions} == {"red"}
        expected = probabilities((250, 10, 20))
        for prediction in predictions:
            assert list(prediction.probabilities) == list(CLASSES)
            assert list(prediction.probabilities.values()) == pytest.approx(expected.tolist())
            assert prediction.probability == prediction.probabilities["red"]

    def test_images_are_prepared_as_for_training(
        self, classifier: SceneClassifier, bundle: Path, tmp_path: Path
    ) -> None:
        rng = np.random.default_rng(3)
        turned = Image.Exif()
        turned[0x0112] = 6
        path = tmp_path / "noise.jpg"
        noise = Image.fromarray(rng.integers(0, 255, (31, 57, 3)).astype(np.uint8))
        noise.save(path, exif=turned)
        (verdict,) = classifier.classify([path.read_bytes()])
        expected = OnnxModel(bundle).run(images=load_images([path], SIZE))["probabilities"][0]
        assert list(verdict.probabilities.values()) == pytest.approx(expected.tolist(), abs=0)

    def test_no_images_no_predictions(self, classifier: SceneClassifier) -> None:
        assert classifier.classify([]) == []

    @pytest.mark.parametrize(
        ("image", "reason"),
        [
            (b"", "no JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF image"),
            (RED[:-30], "truncated|broken|no JPEG"),
            ("%%%", "its text is not base64"),
            ("é", "its text is not base64"),
            ("data:image/svg+xml,<svg/>", "its text is not base64"),
            (text(b"8BPS"), "no JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF image"),
            (None, "it is of type NoneType"),
            (3.5, "it is of type float"),
            ([text(RED)], "it is of type list"),
        ],
    )
    def test_what_is_no_image_is_named(
        self, classifier: SceneClassifier, image: object, reason: str
    ) -> None:
        with pytest.raises(DataError, match=f"^image 2 of the request .*({reason})") as caught:
            classifier.classify([RED, image])
        assert "\n" not in str(caught.value)

    def test_an_image_of_too_many_pixels_is_refused_unread(
        self, classifier: SceneClassifier
    ) -> None:
        buffer = io.BytesIO()
        Image.new("1", (9000, 9000)).save(buffer, "PNG")
        with pytest.raises(DataError, match="the limit is 80 megapixels"):
            classifier.classify([buffer.getvalue()])

    def test_another_onnx_model_is_no_bundle(self, bundle: Path, tmp_path: Path) -> None:
        model = onnx.load(bundle)
        del model.metadata_props[:]
        onnx.save(model, tmp_path / "other.onnx")
        with pytest.raises(ModelError, match=r"a bundle is required, .*other\.onnx is none"):
            SceneClassifier(tmp_path / "other.onnx")


@pytest.fixture(scope="module")
def logged(bundle: Path, store_folder: Path) -> tuple[str, str]:
    """Run id and address of a bundle logged to a finished child run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(store_folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store_folder / 'mlflow.db'}")
        with start() as parent, parent.child("end to end") as child:
            pass
        return child.run_id, tracking.log_bundle(child.run_id, bundle, METADATA, text(RED))


@pytest.mark.usefixtures("client")
class TestLoggedBundle:
    def test_the_run_stays_finished_and_lists_the_model(
        self, client: MlflowClient, logged: tuple[str, str], bundle: Path
    ) -> None:
        run = client.get_run(logged[0])
        assert run.info.status == "FINISHED"
        assert [f"models:/{o.model_id}" for o in run.outputs.model_outputs] == [logged[1]]
        found = tracking.resolve_onnx(logged[0], "bundle")
        assert found.read_bytes() == bundle.read_bytes()
        assert tracking.registered_onnx(logged[1]) == found

    def test_the_same_file_is_logged_once_and_another_one_again(
        self, client: MlflowClient, bundle: Path, tmp_path: Path
    ) -> None:
        with start() as tracker:
            pass
        later = fake_bundle(tmp_path / "other.onnx", made="later")
        files = (bundle, bundle, later, later)
        addresses = [
            tracking.log_bundle(tracker.run_id, file, METADATA, text(RED)) for file in files
        ]
        assert addresses[0] == addresses[1] != addresses[2] == addresses[3]
        assert tracking.resolve_onnx(tracker.run_id, "bundle").read_bytes() == later.read_bytes()

    def test_the_folder_holds_two_flavours_and_nothing_that_executes(
        self, logged: tuple[str, str]
    ) -> None:
        folder = tracking.resolve_onnx(logged[0], "bundle").parent
        described = yaml.safe_load((folder / "MLmodel").read_text())
        assert set(described["flavors"]) == {"onnx", "python_function"}
        function = described["flavors"]["python_function"]
        assert function["loader_module"] == "scenetrack.tracking.pyfunc"
        assert function["data"] == "model.onnx"
        assert "code" not in function
        assert described["metadata"] == METADATA
        assert {item.name for item in folder.iterdir()} == {
            "MLmodel", "model.onnx", "requirements.txt", "conda.yaml", "python_env.yaml",
            "input_example.json", "serving_input_example.json",
        }  # fmt: skip
        pins = (folder / "requirements.txt").read_text().split()
        assert all("==" in pin for pin in pins)
        assert {"mlflow", "numpy", "pillow", "pandas"} < {pin.partition("==")[0] for pin in pins}

    def test_the_onnx_flavour_takes_arrays(self, logged: tuple[str, str]) -> None:
        session = OnnxModel(mlflow.onnx.load_model(logged[1]).SerializeToString())
        images = np.zeros((1, 9, 7, 3), np.uint8)
        images[..., 1] = 90
        assert session.run(images=images)["label"].tolist() == [1]

    def test_the_function_takes_files_and_keeps_the_rows(self, logged: tuple[str, str]) -> None:
        model = mlflow.pyfunc.load_model(logged[1])
        frame = pd.DataFrame({"image": [RED, text(BLUE)]}, index=["first", "second"])
        found = model.predict(frame)
        assert list(found.index) == ["first", "second"]
        assert found["label"].tolist() == ["red", "blue"]
        assert found["probability"].tolist() == [
            max(row.values()) for row in found["probabilities"]
        ]
        assert model.predict(model.input_example)["label"].tolist() == ["red"]
        with pytest.raises(MlflowException, match="image 1 of the request") as caught:
            model.predict(pd.DataFrame({"image": [b"no image"]}))
        assert caught.value.get_http_status_code() == 400

    @pytest.mark.parametrize(
        "request_body",
        [
            {"dataframe_split": {"columns": ["image"], "data": [[text(RED)], [text(BLUE)]]}},
            {"dataframe_records": [{"image": text(RED)}, {"image": text(BLUE)}]},
            {"inputs": [text(RED), f"data:image/jpeg;base64,{text(BLUE)}"]},
            {"inputs": {"image": [text(RED), text(BLUE)]}},
            {"instances": [text(RED), text(BLUE)]},
        ],
        ids=["split", "records", "inputs", "named inputs", "instances"],
    )
    def test_every_form_of_a_request_is_answered(
        self, logged: tuple[str, str], request_body: object
    ) -> None:
        model = mlflow.pyfunc.load_model(logged[1])
        content = json.dumps(request_body).encode()
        answer = scoring_server.invocations(
            content, "application/json", model, model.metadata.get_input_schema()
        )
        rows = json.loads(answer.response)["predictions"]
        assert [row["label"] for row in rows] == ["red", "blue"]
        assert set(rows[0]["probabilities"]) == set(CLASSES)
        assert rows[0]["probability"] == rows[0]["probabilities"]["red"]

    def test_the_answer_to_a_bad_image_repeats_no_request(self, logged: tuple[str, str]) -> None:
        model = mlflow.pyfunc.load_model(logged[1])
        content = json.dumps({"inputs": [text(RED), text(b"no image")]}).encode()
        schema = model.metadata.get_input_schema()
        with pytest.raises(MlflowException) as caught:
            scoring_server.invocations(content, "application/json", model, schema)
        assert caught.value.get_http_status_code() == 400
        answer = json.loads(caught.value.serialize_as_json())
        assert answer["message"].startswith("image 2 of the request cannot be used (no JPEG")
        assert set(answer) == {"error_code", "message"}


@pytest.mark.usefixtures("client")
class TestRefusals:
    def test_a_run_without_the_model(self) -> None:
        with start() as tracker:
            pass
        lack = "must hold the ONNX model 'descriptors', but it has none: run the stage again"
        with pytest.raises(ModelError, match=f"^run {tracker.run_id} {lack}"):
            tracking.resolve_onnx(tracker.run_id, "descriptors")

    def test_a_model_whose_files_are_gone(self, logged: tuple[str, str], bundle: Path) -> None:
        with start() as tracker:
            pass
        tracking.log_bundle(tracker.run_id, bundle, METADATA, text(RED))
        place = tracking.resolve_onnx(tracker.run_id, "bundle")
        place.unlink()
        with pytest.raises(ModelError, match=f"its files at {place.parent} are missing"):
            tracking.resolve_onnx(tracker.run_id, "bundle")

    def test_a_model_that_failed_while_it_was_logged(
        self, bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: object) -> None:
            raise OSError("disk full")

        with start() as tracker:
            pass
        monkeypatch.setattr(MlflowClient, "log_model_artifacts", fail)
        with pytest.raises(OSError, match="disk full"):
            tracking.log_bundle(tracker.run_id, bundle, METADATA, text(RED))
        with pytest.raises(ModelError, match="it has none"):
            tracking.resolve_onnx(tracker.run_id, "bundle")
