# The README's two commands in a container:
#   docker build --tag jobrec-gym .
#   docker run --rm jobrec-gym make demo
#   docker run --rm jobrec-gym make test
FROM python:3.11-slim

RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home jobrec
USER jobrec
WORKDIR /home/jobrec/jobrec-gym

COPY --chown=jobrec . .
RUN make install

CMD ["make", "demo"]
