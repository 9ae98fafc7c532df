def data_uri(pixels, scale=1): return "data:image/png;base64,"
