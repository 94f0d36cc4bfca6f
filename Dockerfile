# The image of a worker: docker build -t failsoft . && docker run failsoft worker --help
FROM python:3.12-slim
# Text models of scikit-learn (TfidfVectorizer and others) name this locale in their files, and slim images lack it.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends locales \
    && localedef --inputfile=en_US --charmap=UTF-8 en_US.UTF-8 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY pyproject.toml setup.py README.md ./
COPY schemas schemas
COPY topics topics
COPY models models
COPY workers workers
COPY ops ops
RUN pip install --no-cache-dir . && useradd --system --uid 10001 failsoft
USER failsoft
# Probes and metrics. By default they listen on loopback only: set --metrics-host 0.0.0.0 --metrics-port 9464
EXPOSE 9464
STOPSIGNAL SIGTERM
ENTRYPOINT ["failsoft"]
CMD ["worker"]
