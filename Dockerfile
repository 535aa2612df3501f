# docker build --tag hwnas . && docker run --rm --volume "$PWD:/work" hwnas profile net.onnx --device cpu
# With torch and all devices: docker build --build-arg EXTRAS=all --tag hwnas:all .
FROM python:3.12-slim
ARG EXTRAS=""
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY hwnas hwnas
RUN pip install --no-cache-dir --constraint constraints.txt ".${EXTRAS:+[$EXTRAS]}" && rm -rf /src
RUN useradd --create-home user && mkdir /work && chown user /work
USER user
WORKDIR /work
ENTRYPOINT ["hwnas"]
