# Two stages: the first verifies every download against the lock and builds the wheel; the second carries what runs.
FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements.lock ./
RUN pip download --quiet --require-hashes --requirement requirements.lock --dest /wheels
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY scheduler scheduler
COPY operator operator
COPY crds crds
COPY migrations migrations
# From here on nothing is downloaded: what isn't in the lock isn't in the image.
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONSAFEPATH=1
RUN python -m venv /build && /build/bin/pip install --quiet hatchling \
    && /build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /dist . \
    && python -m venv /opt/fairlead && /opt/fairlead/bin/pip install --quiet "$(ls /dist/*.whl)[api,books,nvml,operator]"

FROM python:3.11-slim
# PYTHONSAFEPATH: never take a module from the working directory. No -O anywhere: asserts are part of the program.
ENV PATH=/opt/fairlead/bin:$PATH PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --uid 65532 --user-group --no-create-home --shell /usr/sbin/nologin fairlead \
    && install --directory --owner=fairlead --group=fairlead /var/lib/fairlead
COPY --from=build /opt/fairlead /opt/fairlead
USER 65532:65532
WORKDIR /var/lib/fairlead
CMD ["fairlead", "--help"]
