"""The address of a model's server, where an environment variable of litellm's names it."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

__all__ = ["address_of"]

_OPENAI = ("OPENAI_BASE_URL", "OPENAI_API_BASE")
_OTHER_NAMES = {
    "ai21": _OPENAI,
    "ai21_chat": ("AI21_API_BASE",),
    "aiohttp_openai": _OPENAI,
    "anthropic": ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"),
    "azure_text": ("AZURE_API_BASE",),
    "cohere_chat": ("COHERE_API_BASE",),
    "custom_openai": _OPENAI,
    "datarobot": ("DATAROBOT_ENDPOINT",),
    "fireworks_ai": ("FIREWORKS_API_BASE",),
    "friendliai": ("FRIENDLI_API_BASE",),
    "huggingface": ("HF_API_BASE", "HUGGINGFACE_API_BASE"),
    "lambda_ai": ("LAMBDA_API_BASE",),
    "litellm_proxy": ("LITELLM_PROXY_API_BASE", *_OPENAI),
    "lm_studio": ("LM_STUDIO_API_BASE", *_OPENAI),
    "meta_llama": ("LLAMA_API_BASE",),
    "mistral": ("MISTRAL_AZURE_API_BASE",),
    "ollama_chat": ("OLLAMA_API_BASE",),
    "openai": _OPENAI,
    "tensormesh": ("TENSORMESH_SERVERLESS_BASE_URL",),
    "text-completion-openai": _OPENAI,
    "vertex_ai": ("VERTEXAI_API_BASE", "VERTEX_API_BASE"),
}
"""The variables that litellm reads, in its order, for providers that do not have just ``<PROVIDER>_API_BASE``."""
_PUBLIC = {
    "api.ai21.com",
    "api.anthropic.com",
    "api.cerebras.ai",
    "api.cohere.com",
    "api.deepinfra.com",
    "api.deepseek.com",
    "api.fireworks.ai",
    "api.groq.com",
    "api.mistral.ai",
    "api.perplexity.ai",
    "api.sambanova.ai",
    "api.together.xyz",
    "api.x.ai",
    "app.datarobot.com",
    "generativelanguage.googleapis.com",
    "integrate.api.nvidia.com",
    "openrouter.ai",
}
"""Hosts of providers. A variable that names one of them says what holds without it too. OpenAI's is not among them,
because it was in the keys of answers before the others were."""


def address_of(model: str, api_base: str | None = None) -> str | None:
    """The address that calls will go to, as a part of an answer's key.

    Args:
        model: litellm's name of the model; its provider stands before the first slash.
        api_base: The address, if it was given. Otherwise it comes from the provider's environment variable.

    Returns:
        ``None`` if neither an argument nor a variable gives an address, or if a variable gives one of :data:`_PUBLIC`.
    """
    if api_base is None:
        # litellm is not asked: a replay needs no litellm, and its import takes seconds.
        provider = model.partition("/")[0] if "/" in model else "openai"
        names = _OTHER_NAMES.get(provider, (f"{provider.upper().replace('-', '_')}_API_BASE",))
        api_base = next((value for name in names if (value := os.environ.get(name))), None)
        if api_base is not None and urlsplit(api_base).hostname in _PUBLIC:
            return None
    return None if api_base is None else api_base.rstrip("/")
