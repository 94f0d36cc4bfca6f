"""Settings: flags over environment over pipeline file, and the refusal of mistakes by their key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from aiokafka.conn import collect_hosts

from failsoft.schemas.config.refusal import Refused
from failsoft.schemas.event import Envelope
from failsoft.workers.settings import Settings, load, wanted

CONTRACT = """
name = "car-loans"
model = "repayment"
guarantee = "exactly_once"

[kafka]
bootstrap_servers = "127.0.0.1:9092"

[input]
topics = ["car-loans.events"]
format = "json"
id = "event_id"
time = "occurred_at"
features = "features"
max_bytes = 1_000_000

[retry]
delays = ["5s", "30s", "5m"]
jitter = 0.1

[models]
repository = "models/repository"
"""
LEAST = 'name = "p"\nmodel = "m"\n[input]\ntopics = ["in"]\n'


def _load(tmp_path: Path, text: str = LEAST, environ: Mapping[str, str] | None = None, **flags: object) -> Settings:
    file = tmp_path / "pipeline.toml"
    file.write_text(text)
    return load(file, environ or {}, {k.replace("__", "."): v for k, v in flags.items()})


def _refusal(tmp_path: Path, text: str = LEAST, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(Refused) as caught:
        _load(tmp_path, text, environ)
    return str(caught.value).replace(f"{tmp_path / 'pipeline.toml'}: ", "")


def test_the_contracts_file_is_read(tmp_path: Path) -> None:
    """The contract's example is accepted, and its keys have the expected effect."""
    found = _load(tmp_path, CONTRACT)
    assert (found.name, found.model, found.guarantee) == ("car-loans", "repayment", "exactly_once")
    assert found.envelope == Envelope("event_id", "occurred_at", "features", 1_000_000)
    assert found.retry.rungs == (("5s", 5.0), ("30s", 30.0), ("5m", 300.0)) and found.retry.jitter == 0.1
    assert found.names.scored == "car-loans.scored"
    assert found.connection() == {"bootstrap_servers": "127.0.0.1:9092", "security_protocol": "PLAINTEXT"}


def test_the_smallest_file_has_the_contracts_defaults(tmp_path: Path) -> None:
    """The default of an optional key is the value in the contract's example."""
    found = _load(tmp_path)
    assert found.guarantee == "exactly_once" and found.retry.delays == ["5s", "30s", "5m"]
    assert found.input.max_bytes == 1_000_000 and found.input.id is None


def test_a_linked_file_keeps_the_folder_of_its_link(tmp_path: Path) -> None:
    """Kubernetes mounts a ConfigMap as links into another folder; the repository and rules are beside the link."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "pipeline.toml").write_text(LEAST)
    (tmp_path / "pipeline.toml").symlink_to(tmp_path / "..data" / "pipeline.toml")
    found = load(tmp_path / "pipeline.toml", {})
    assert found.folder == tmp_path and found.models.repository == str(tmp_path / "models" / "repository")


def test_a_relative_repository_is_relative_to_the_files_folder(tmp_path: Path) -> None:
    """A relative repository path is relative to the pipeline file's folder; an absolute path is unchanged."""
    assert _load(tmp_path).models.repository == str(tmp_path / "models/repository")
    assert _load(tmp_path, LEAST + '[models]\nrepository = "/elsewhere"\n').models.repository == "/elsewhere"


def test_flag_over_environment_over_file(tmp_path: Path) -> None:
    """A flag overrides the environment, which overrides the file; a flag that was not given (None) has no effect."""
    text = LEAST + '[kafka]\nbootstrap_servers = "file:1"\n'
    environ = {"FAILSOFT_KAFKA__BOOTSTRAP_SERVERS": "env:1"}
    assert _load(tmp_path, text).kafka.bootstrap_servers == "file:1"
    assert _load(tmp_path, text, environ).kafka.bootstrap_servers == "env:1"
    assert _load(tmp_path, text, environ, kafka__bootstrap_servers="flag:1").kafka.bootstrap_servers == "flag:1"
    assert _load(tmp_path, text, environ, kafka__bootstrap_servers=None).kafka.bootstrap_servers == "env:1"


@pytest.mark.parametrize(
    ("name", "text", "section", "key", "value"),
    [
        ("FAILSOFT_INPUT__TOPICS", "a.b,c", "input", "topics", ["a.b", "c"]),
        ("FAILSOFT_INPUT__TOPICS", '["a"]', "input", "topics", ["a"]),
        ("FAILSOFT_INPUT__TOPICS", "only", "input", "topics", ["only"]),
        ("FAILSOFT_INPUT__TOPICS", "1", "input", "topics", ["1"]),
        ("FAILSOFT_INPUT__TOPICS", " true ", "input", "topics", ["true"]),
        ("FAILSOFT_INPUT__TOPICS", "2026-01-01", "input", "topics", ["2026-01-01"]),
        ("FAILSOFT_INPUT__TOPICS", '"a"', "input", "topics", ["a"]),
        ("FAILSOFT_INPUT__MAX_BYTES", "500", "input", "max_bytes", 500),
        ("FAILSOFT_INPUT__ID", "12", "input", "id", "12"),
        ("FAILSOFT_INPUT__FEATURES", "", "input", "features", ""),
        ("FAILSOFT_RETRY__DELAYS", "1s, 2s", "retry", "delays", ["1s", "2s"]),
        ("FAILSOFT_RETRY__DELAYS", "[]", "retry", "delays", []),
        ("FAILSOFT_RETRY__JITTER", "0", "retry", "jitter", 0.0),
        ("FAILSOFT_KAFKA__REPLICATION", "2", "kafka", "replication", 2),
    ],
)
def test_a_variable_is_read_by_the_type_of_its_key(
    tmp_path: Path, name: str, text: str, section: str, key: str, value: object
) -> None:
    """A variable for a text key stays text; numbers are parsed; lists are TOML or comma-separated."""
    assert getattr(getattr(_load(tmp_path, LEAST, {name: text}), section), key) == value


def test_other_variables_are_ignored(tmp_path: Path) -> None:
    """Variables without our prefix, and ours that are not keys of the file, do not change the settings."""
    assert _load(tmp_path, LEAST, {"PATH": "x", "FAILSOFT_WORKER_ID": "w", "FAILSOFT_PIPELINE": "y"}).name == "p"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('model = "m"\n[input]\ntopics = ["in"]', "name: missing"),
        (LEAST + "topic = []", "input.topic: no such key (did you mean 'topics'?)"),
        (LEAST + "[retri]", "retri: no such key (did you mean 'retry'?)"),
        (LEAST.replace('"p"', '"-p"'), "'-p' cannot prefix topics"),
        (LEAST.replace('"m"', '" "'), "model: ' ' cannot be a model's name"),
        (LEAST.replace('["in"]', "[]"), "input.topics: "),
        (LEAST.replace('["in"]', '["p.scored"]'), "'p.scored' is one of the pipeline's own topics"),
        (LEAST.replace('["in"]', '["p.retry.9h"]'), "'p.retry.9h' is one of the pipeline's own topics"),
        (LEAST.replace('["in"]', '["in", "in"]'), "a topic is named twice"),
        (LEAST + "[kafka]\nreplication = -1", "kafka.replication: "),
        (LEAST + "max_bytes = 0", "input.max_bytes: "),
        (LEAST + 'max_bytes = "5"', "input.max_bytes: "),
        (LEAST + 'format = "avro"', "schema_registry.url: missing, but input.format is 'avro'"),
        (LEAST + 'format = "xml"', "input.format: Input should be 'json', 'avro' or 'protobuf'"),
        (LEAST + '[output]\nformat = "avro"', "schema_registry.url: missing, but output.format is 'avro'"),
        (LEAST + '[schema_registry]\nurl = "registry:8081"', "schema_registry.url: 'registry:8081' is not an address"),
        (LEAST + '[schema_registry]\nurl = "http://u:pw@r:8081"', "schema_registry.url: an address with a user: write"),
        (
            LEAST + '[schema_registry]\nbearer_token = "x"',
            "schema_registry.bearer_token: a password must not be in a file",
        ),
        (LEAST + '[schema_registry]\ndeadline = "11s"', "schema_registry.deadline: 11s; at most 10s"),
        (LEAST + '[schema_registry]\nopen_for = "2m"', "schema_registry.max_open: 1m, shorter than"),
        (LEAST.replace('["in"]', '["in", "a b"]'), "input.topics[1]: 'a b' is not a topic name"),
        (LEAST.replace('["in"]', '[".."]'), "input.topics[0]: '..' is not a topic name"),
        (
            LEAST + '[kafka]\nbootstrap_servers = "a:1, b:no"',
            "kafka.bootstrap_servers: 'b:no' is not a broker address",
        ),
        (LEAST + '[kafka]\nbootstrap_servers = "a b:1"', "kafka.bootstrap_servers: 'a b:1' is not a broker address"),
        (LEAST + '[kafka]\nbootstrap_servers = "a:1,"', "kafka.bootstrap_servers: '' is not a broker address"),
        (
            LEAST + '[kafka]\nbootstrap_servers = "a:70000"',
            "kafka.bootstrap_servers: 'a:70000' is not a broker address",
        ),
        (LEAST + '[kafka]\nsecurity_protocol = "SASLSSL"', "(did you mean 'SASL_SSL'?)"),
        (LEAST + '[retry]\ndelays = ["5s", "1x"]', "retry.delays[1]: '1x' is not a duration"),
        (LEAST + '[retry]\ndelays = ["5s", "5000ms"]', "retry.delays: delays must rise"),
        (LEAST + f'[retry]\ndelays = ["5.{"0" * 60}s"]', None),
        (LEAST.replace('"p"', f'"{"p" * 180}"') + f'[retry]\ndelays = ["5.{"0" * 60}s"]', "longer than Kafka's 249"),
        (LEAST + "[retry]\njitter = 1.0", "retry.jitter: "),
        ('guarantee = "exactly-once"\n' + LEAST, "(did you mean 'exactly_once'?)"),
        ('guarantee = "maybe"\n' + LEAST, "guarantee: Input should be 'exactly_once' or 'at_least_once'"),
        (LEAST + '[kafka]\nsasl_password = "x"', "kafka.sasl_password: a password must not be in a file"),
        ("kafka = 5\n" + LEAST, "kafka: "),
        ("name = ", "not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_refused_by_its_key(tmp_path: Path, text: str, message: str | None) -> None:
    """A mistake is refused with its key and the allowed values; None in the cases means a valid file."""
    if message is None:
        assert _load(tmp_path, text)
    else:
        assert message in _refusal(tmp_path, text)


def test_a_mistake_in_the_environment_is_refused_by_its_name(tmp_path: Path) -> None:
    """An unknown variable with our prefix is refused as a spelling mistake, and a wrong value names its variable."""
    message = _refusal(tmp_path, LEAST, {"FAILSOFT_KAFKA__BOOTSTRAP_SERVER": "x"})
    assert "FAILSOFT_KAFKA__BOOTSTRAP_SERVER: no such setting" in message
    assert "did you mean 'FAILSOFT_KAFKA__BOOTSTRAP_SERVERS'?" in message
    message = _refusal(tmp_path, LEAST, {"FAILSOFT_INPUT__MAX_BYTES": "many"})
    assert message.startswith("input.max_bytes: ") and message.endswith("(set by FAILSOFT_INPUT__MAX_BYTES)")
    assert message.count("set by") == 1


def test_the_file_is_found_by_flag_environment_or_folder(tmp_path: Path) -> None:
    """The file is that of the flag, else of the environment, else of the folder; the error for none says what to do."""
    for name in ("flag", "env", "here"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pipeline.toml").write_text(LEAST.replace('"p"', f'"{name}"'))
    environ = {"FAILSOFT_PIPELINE": str(tmp_path / "env" / "pipeline.toml")}
    here = tmp_path / "here"
    assert load(tmp_path / "flag", environ, cwd=here).name == "flag"
    assert load(None, environ, cwd=here).name == "env"
    assert load(None, {}, cwd=here).name == "here"
    with pytest.raises(Refused, match="failsoft init"):
        load(None, {}, cwd=tmp_path)


def test_replication_is_the_files_or_depends_on_the_cluster(tmp_path: Path) -> None:
    """A configured replication is used; without one it is None, and topics.admin takes three or one per broker."""
    assert wanted(_load(tmp_path, LEAST + "[kafka]\nreplication = 2")).replication == 2
    assert wanted(_load(tmp_path)).replication is None


OAUTH = 'security_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "OAUTHBEARER"\n'


def test_tokens_come_from_the_pipelines_folder_and_are_shared(tmp_path: Path) -> None:
    """All clients of a pipeline share one provider of tokens; a relative file is in the pipeline file's folder."""
    (tmp_path / "token").write_text("abc")
    keys = 'sasl_oauth_token_file = "token"\nsasl_oauth_extensions = "a=1, b=2"'
    found = _load(tmp_path, LEAST + f"[kafka]\n{OAUTH}{keys}")
    provider = found.connection()["sasl_oauth_token_provider"]
    assert provider is found.connection()["sasl_oauth_token_provider"]
    assert provider.fetch() == "abc" and provider.extensions() == {"a": "1", "b": "2"}


def test_kerberos_is_refused_with_what_is_supported(tmp_path: Path) -> None:
    """GSSAPI is no mistake of spelling: the message lists the mechanisms."""
    with pytest.raises(Refused, match=r"kafka\.sasl_mechanism: .*PLAIN.*SCRAM-SHA-256.*OAUTHBEARER"):
        _load(tmp_path, LEAST + '[kafka]\nsasl_mechanism = "GSSAPI"')


def test_secrets_come_from_the_environment_and_are_not_shown(tmp_path: Path) -> None:
    """The Kafka client gets the password; printed settings do not contain it."""
    text = LEAST + '[kafka]\nsecurity_protocol = "SASL_PLAINTEXT"\nsasl_username = "u"\n'
    found = _load(tmp_path, text, {"FAILSOFT_KAFKA__SASL_PASSWORD": "s3cret"})
    assert found.connection()["sasl_plain_password"] == "s3cret"
    assert "s3cret" not in repr(found) and "s3cret" not in found.model_dump_json()


@pytest.mark.parametrize("token", ["", "t0k\n", "t0 k", "t0k\0"])
def test_a_token_that_no_request_can_carry_is_refused_and_not_shown(tmp_path: Path, token: str) -> None:
    """Such as that of a file, whose last character is a line break: no look-up could be made."""
    message = _refusal(tmp_path, LEAST, {"FAILSOFT_SCHEMA_REGISTRY__BEARER_TOKEN": token})
    assert "schema_registry.bearer_token: empty, or with a space or a line break" in message and "t0" not in message


@pytest.mark.parametrize(
    "servers", ["a", "a:1", "a.b-c:1, 10.0.0.1:2", "[::1]:9092", "::1", "fe80::1", "kafka_0:65535"]
)
def test_broker_addresses_are_those_that_the_client_accepts(tmp_path: Path, servers: str) -> None:
    """Host names and IP addresses, with or without a port, are accepted; a space after a comma is removed."""
    found = _load(tmp_path, LEAST + f'[kafka]\nbootstrap_servers = "{servers}"').kafka.bootstrap_servers
    assert found == servers.replace(" ", "")
    assert collect_hosts(found)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('security_protocol = "SASL_SSL"', "kafka.sasl_username: missing"),
        ('security_protocol = "SASL_SSL"\nsasl_username = "u"', "FAILSOFT_KAFKA__SASL_PASSWORD: missing"),
        ('security_protocol = "SSL"\nssl_cafile = "nowhere.pem"', "kafka.ssl_cafile: nowhere.pem: no such file"),
        ('security_protocol = "SSL"\nssl_cafile = "{file}"', "cannot be used"),
        ('ssl_cafile = "ca.pem"', "kafka.ssl_cafile: set, and kafka.security_protocol is PLAINTEXT"),
        (
            'security_protocol = "SSL"\nsasl_username = "u"',
            "kafka.sasl_username: set, and kafka.security_protocol is SSL",
        ),
        (
            'security_protocol = "SASL_SSL"\nsasl_oauth_token_file = "t"',
            "kafka.sasl_oauth_token_file: set, and kafka.sasl_mechanism is PLAIN",
        ),
        (OAUTH, "OAUTHBEARER needs exactly one of them, and none is set"),
        (
            OAUTH + 'sasl_oauth_token_file = "t"\nsasl_oauth_token_command = "c"',
            "command and sasl_oauth_token_file",
        ),
        (OAUTH + 'sasl_oauth_token_file = "nowhere.jwt"', "kafka.sasl_oauth_token_file: nowhere.jwt: no such file"),
        (OAUTH + "sasl_oauth_token_command = 'a \"b'", "kafka.sasl_oauth_token_command: 'a \"b' is no command"),
        (OAUTH + 'sasl_oauth_token_endpoint = "login"', "kafka.sasl_oauth_token_endpoint: 'login' is no http"),
        (OAUTH + 'sasl_oauth_token_endpoint = "https://a/b"', "kafka.sasl_oauth_client_id: missing"),
        (
            OAUTH + 'sasl_oauth_token_endpoint = "https://a/b"\nsasl_oauth_client_id = "i"',
            "FAILSOFT_KAFKA__SASL_OAUTH_CLIENT_SECRET: missing",
        ),
        (OAUTH + 'sasl_oauth_token_command = "c"\nsasl_oauth_extensions = "auth=1"', "sasl_oauth_extensions: 'auth=1'"),
    ],
)
def test_credentials_are_checked_when_kafka_is_used(tmp_path: Path, keys: str, message: str) -> None:
    """Missing credentials are refused by their key when connecting, not when loading: vetting a model needs none."""
    found = _load(tmp_path, LEAST + f"[kafka]\n{keys.format(file=tmp_path / 'pipeline.toml')}")
    with pytest.raises(Refused) as caught:
        found.connection()
    assert message in str(caught.value)
