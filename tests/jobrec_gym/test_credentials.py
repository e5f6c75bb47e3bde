"""Keys reach no file, log, info, exception: 60 spellings are refused, 20 echoes are masked."""

import base64

import pytest

from jobrec_gym.credentials import is_credential_name, mask, place_of_credential, refuse_credentials

SECRET = "q7Zp3Lw9Xk2Vt8Rb5Nc1"
SHAPED = {
    "openai": "sk-proj-AbCdEf0123456789_xyz-0123",
    "openai of old": "sk-0123456789abcdefABCDEF0123456789",
    "anthropic": "sk-ant-api03-abcdefABCDEF-0123456789",
    "hugging face": "hf_AbCdEfGhIjKlMnOpQrStUv",
    "groq": "gsk_AbCdEfGhIjKlMnOpQrStUv",
    "google": "AIzaSyA-0123456789abcdefghijklmnopqrs",
    "google oauth": "ya29.a0AfH6SMBx0123456789",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "github": "ghp_0123456789abcdefABCDEF0123456789",
    "slack": "xoxb-0123456789-abcdefghij",
    "nvidia": "nvapi-0123456789abcdefABCDEF",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "bearer": f"Bearer {SECRET}",
    "basic": "Basic dXNlcjpwYXNzd29yZA==",
    "pem": "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
}
SPELLINGS = [
    *(
        {name: SECRET}
        for name in ("api_key", "apiKey", "API-KEY", "apikey", "x-api-key", "X_API_KEY", "Ocp-Apim-Subscription-Key")
    ),
    *(
        {name: SECRET}
        for name in ("Authorization", "authorisation", "proxy-authorization", "auth", "auth_token", "authToken")
    ),
    *(
        {name: SECRET}
        for name in ("token", "access_token", "accessToken", "id_token", "refresh-token", "hf_token", "bearer")
    ),
    *(
        {name: SECRET}
        for name in ("password", "passwd", "pwd", "passphrase", "db.password", "client_secret", "secret", "SecretKey")
    ),
    *(
        {name: SECRET}
        for name in ("aws_secret_access_key", "aws_session_token", "AWS_ACCESS_KEY_ID", "vertex_credentials")
    ),
    *(
        {name: SECRET}
        for name in ("private_key", "service_account_key", "openai_key", "cookie", "Set-Cookie", "jwt", "signature")
    ),
    *({name: SECRET} for name in ("api%5Fkey", "api%255Fkey", "API%5fKEY", "key", "my key")),
    {"headers": {"X-Api-Key": SECRET}},
    {"extra_headers": [("Authorization", SECRET)]},
    {"a": [{"b": {"c": [{"d": {"api_key": SECRET}}]}}]},
    {"list": [["token", SECRET]]},
    {"text": f'{{"api_key": "{SECRET}"}}'},
    {"note": f"api_key={SECRET}"},
    {"api_base": f"https://host/v1?api_key={SECRET}"},
    {"api_base": f"https://host/v1?x=1&key={SECRET}"},
    {"api_base": f"https://host/v1?code=1;sig={SECRET}"},
    {"api_base": f"https://host/v1?api%5Fkey={SECRET}"},
    {"api_base": f"https://host/v1#access_token={SECRET}"},
    {"api_base": f"https://user:{SECRET}@host/v1"},
    {"api_base": f"https://{SECRET}@host/v1"},
    {"api_base": f"https://user%3A{SECRET}%40host/v1"},
    {"cache": f"redis://:{SECRET}@host:6379/0"},
    {SHAPED["openai"]: 1},
    *({"value": text} for text in SHAPED.values()),
]
HARMLESS = [
    {"temperature": 0.0, "seed": 0, "max_tokens": 160, "max_completion_tokens": None, "extra_body": None, "repeat": 0},
    {"cache_prompt": False, "reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}},
    {"api_base": "https://host:8080/v1?api-version=2024-06-01&deployment=gpt"},
    {"persona": "A bearer of good news: keys, tokens, secretaries. Basic understanding of auth, passwords"},
    {"model": "openai/gpt-4o-mini", "cache": "/tmp/answers.sqlite", "cache_mode": "record", "api_key": None},
    {"model": "huggingface/HuggingFaceTB/SmolLM2-135M-Instruct", "job_key": "j1", "applicant_key": "p1"},
    {"cache": "redis://host:6379/0"},
    {"columns": {"key": "job id", "title": "name"}, "monkey": 1, "keyboard": "qwerty", "max_token": 5},
]
ECHOES = [
    f"Incorrect API key provided: {SECRET}. You can find it",
    f"Incorrect API key provided: {SECRET[:8]}************{SECRET[-4:]}.",
    f"bad header Authorization: Bearer {SECRET}",
    f'{{"error": {{"headers": {{"authorization": "Bearer {SECRET}"}}}}}}',
    f"{{'api_key': '{SECRET}'}}",
    f"GET https://host/v1?api_key={SECRET}&x=1 failed",
    f"GET https://user:{SECRET}@host/v1 failed",
    f"key={SECRET}",
    f"x-api-key : {SECRET}",
    SECRET.upper(),
    SECRET.lower(),
    f"{SECRET[:10]}\n{SECRET[10:]}",
    f"{SECRET[:10]} {SECRET[10:]}",
    base64.b64encode(SECRET.encode()).decode(),
    f"...{SECRET[3:15]}...",
    f"{SECRET}{SECRET}",
    f"\x1b[31m{SECRET}\x1b[0m",
    f"“{SECRET}”",
    f"x{SECRET}y",
    f"{'long ' * 50}{SECRET}{' long' * 50}",
]


def test_there_are_as_many_cases_as_are_promised():
    assert len(SPELLINGS) >= 60 and len(ECHOES) >= 20


@pytest.mark.parametrize("spelling", SPELLINGS, ids=str)
def test_a_key_is_found_wherever_it_stands_and_not_told(spelling):
    place = place_of_credential(spelling, "sampling.extra_body", sent=True)
    assert place is not None and place.startswith("sampling.extra_body")
    with pytest.raises(ValueError, match=r"would be written down: give `api_key`\.") as caught:
        refuse_credentials(spelling, "simulator", "give `api_key`", sent=True)
    for secret in (SECRET, *SHAPED.values()):
        assert secret not in str(caught.value)


@pytest.mark.parametrize("value", HARMLESS, ids=str)
def test_what_is_no_key_is_let_through(value):
    assert place_of_credential(value) is None


def test_a_bare_key_is_one_only_where_it_is_sent():
    assert is_credential_name("key", sent=True) and not is_credential_name("key")
    assert not is_credential_name("max_tokens", sent=True)


def test_what_the_environment_holds_as_a_key_is_one_under_any_name(monkeypatch):
    monkeypatch.setenv("FANCY_API_KEY", "correct horse battery")
    assert place_of_credential({"persona": "say correct horse battery"}, "simulator") == "simulator.persona"
    assert mask("you sent correct horse battery.") == "you sent ***."


@pytest.mark.parametrize("echo", ECHOES, ids=repr)
def test_an_echo_of_a_key_is_masked(echo):
    masked = mask(echo, SECRET)
    assert "***" in masked
    squeezed = "".join(masked.split()).lower()
    for start in range(len(SECRET) - 7):
        assert SECRET[start : start + 8].lower() not in squeezed


@pytest.mark.parametrize("shaped", SHAPED.values(), ids=SHAPED)
def test_a_key_of_somebody_else_is_masked_by_its_form(shaped):
    assert mask(f"so: {shaped} it is").startswith("so: ***")
    assert shaped not in mask(f"so: {shaped} it is")


@pytest.mark.parametrize(
    "text",
    [
        "model `gpt-5` does not exist",
        "maximum context length is 8192 tokens: you asked for 9000 tokens",
        "Rate limit reached: limit 3 / min. Visit https://platform.openai.com/account/rate-limits",
        '{"reason": "a cook, no token of interest", "decision": "save"}',
        "",
    ],
)
def test_a_text_without_a_key_stays_as_it_is(text):
    assert mask(text, SECRET, None, "none") == text
