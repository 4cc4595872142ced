# The HTTP service in a container without rights, which needs no network but its own port:
#
#     make wheel && docker build -t u2net-remover .
#     docker run --rm --read-only --cap-drop ALL -p 127.0.0.1:8000:8000 u2net-remover
#     docker run --rm -v "$PWD:/work" -w /work --user "$(id -u)" u2net-remover photo.jpg -o cutout.png
#
# In go the wheel, with its model, and what that depends on; neither the toolchain's packages nor a compiler.

FROM python:3.11-slim AS install
WORKDIR /wheel
COPY constraints.txt dist/u2net_remover-*.whl ./
RUN python -m venv /opt/u2net \
    && /opt/u2net/bin/pip install --no-cache-dir --constraint constraints.txt "$(ls ./*.whl)[heif,serve]" \
    && /opt/u2net/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim
COPY --from=install /opt/u2net /opt/u2net
ENV PATH=/opt/u2net/bin:$PATH
USER 65532:65532
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["u2net"]
CMD ["serve", "--host", "0.0.0.0"]
