"""safetensors files with a text of metadata: 8 bytes of header length, a JSON header, the tensors' bytes in order."""
import json

import numpy

DTYPES = {"F64": numpy.float64, "I32": numpy.int32}


def write(path, tensors, metadata):
    """tensors: name -> numpy array of f64 or i32; metadata: str -> str."""
    names = sorted(tensors, key=lambda name: tensors[name].dtype != numpy.float64)  # f64 first: all data stays aligned
    header, end = {"__metadata__": metadata}, 0
    for name in names:
        tensor = tensors[name]
        dtype = next(key for key, value in DTYPES.items() if value == tensor.dtype)
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(numpy.ascontiguousarray(tensors[name]).tobytes())


def read(path):
    """(tensors, metadata) as given to write."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    metadata = header.pop("__metadata__")
    return {
        name: numpy.frombuffer(data[slice(*entry["data_offsets"])], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
    }, metadata
