"""ONNX models: signature, session, memory."""
