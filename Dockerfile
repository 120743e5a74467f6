# docker build -t sarlib . && docker run --rm -it -p 8888:8888 sarlib make lab LAB="--allow-root --ip=0.0.0.0 --no-browser"
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /sarlib
COPY requirements.lock pyproject.toml README.md LICENSE Makefile ./
COPY sarlib ./sarlib
COPY book ./book
RUN make environment
COPY . .
CMD ["make", "table2", "PRESET=tiny"]
