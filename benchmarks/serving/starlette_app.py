"""The least there is: Starlette and ONNX Runtime as their documentation writes them. ``RELEASE`` names the folder."""

import os

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from slimline.predictor import Predictor

predictor = Predictor(os.environ["RELEASE"], threads=1)
specs = {spec["name"]: np.dtype(spec["dtype"]) for spec in predictor.signature["inputs"]}
labels = predictor.signature.get("labels")
session = predictor.runtime


async def predict(request: Request) -> JSONResponse:
    """Answer JSON arrays with the label and probabilities of each row."""
    document = await request.json()
    arrays = {name: np.asarray(values, specs[name]) for name, values in document["inputs"].items()}
    logits = next(iter(session.run(arrays).values()))
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    shares = odds / odds.sum(-1, keepdims=True)
    names = labels or [str(index) for index in range(shares.shape[-1])]
    return JSONResponse(
        {
            "predictions": [
                {"label": names[int(row.argmax())], "probabilities": dict(zip(names, row.tolist(), strict=True))}
                for row in shares
            ]
        }
    )


async def ready(_: Request) -> JSONResponse:
    """Answer once the model is loaded."""
    return JSONResponse({})


app = Starlette(routes=[Route("/predict", predict, methods=["POST"]), Route("/readyz", ready)])
