"""Which of Asterisk's modules are loaded, and why. Everything else stays out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from callrouter.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ModuleGroup:
    reason: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


MODULES: tuple[ModuleGroup, ...] = (
    ModuleGroup(
        "Objects of PJSIP, from files and memory.", ("res_sorcery_config", "res_sorcery_memory", "res_sorcery_astdb")
    ),
    ModuleGroup("A clock for playback and mixing.", ("res_timing_timerfd",)),
    ModuleGroup(
        "SIP: calls in and out, registration, digests, caller identity.",
        (
            "res_pjproject", "res_pjsip", "res_pjsip_session", "res_pjsip_pubsub", "chan_pjsip", "res_pjsip_sdp_rtp",
            "res_rtp_asterisk", "res_pjsip_endpoint_identifier_ip", "res_pjsip_authenticator_digest",
            "res_pjsip_outbound_authenticator_digest", "res_pjsip_outbound_registration", "res_pjsip_caller_id",
            "res_pjsip_nat", "res_pjsip_diversion", "res_pjsip_header_funcs",
        ),
        ("res_statsd", "res_geolocation", "res_pjsip_rfc3326", "res_pjsip_dlg_options", "res_pjsip_dtmf_info",
         "res_pjsip_logger", "res_pjsip_acl", "func_pjsip_endpoint", "func_pjsip_aor", "func_pjsip_contact"),
    ),
    ModuleGroup(
        # Not bridge_native_rtp: it passes packets on with the timestamps they came with. Those of a destination lie
        # behind those of what the caller was played before, and who then was not recorded heard nothing at all.
        "Conversations, and what the controller bridges itself.",
        ("bridge_simple", "bridge_softmix"),
        ("bridge_holding", "bridge_builtin_features"),
    ),
    ModuleGroup(
        "Codecs and file formats of calls, prompts and recordings.",
        ("codec_ulaw", "codec_alaw", "codec_resample", "format_pcm", "format_wav", "format_sln"),
        ("codec_a_mu", "codec_gsm", "codec_g722", "codec_opus_open_source", "codec_opus", "format_gsm",
         "res_format_attr_opus"),
    ),
    ModuleGroup(
        "The dialplan: entry, talk phase, failsafe.",
        (
            "pbx_config", "app_dial", "app_mixmonitor", "app_stack", "app_exec", "app_playback", "app_verbose",
            "app_userevent",
            "func_callerid",
            "func_cdr", "func_channel", "func_config", "func_cut", "func_groupcount", "func_logic", "func_strings",
            "func_timeout",
        ),
        ("app_softhangup", "func_hangupcause", "func_global", "func_dialplan", "res_musiconhold"),
    ),
    ModuleGroup("Prompts recorded by telephone.", ("app_record", "app_read")),
    ModuleGroup(
        "ARI: the controller's events and requests.",
        (
            "res_http_websocket", "res_stasis", "app_stasis", "res_stasis_answer", "res_stasis_playback",
            "res_stasis_recording", "res_stasis_snoop", "res_ari", "res_ari_model", "res_ari_applications",
            "res_ari_asterisk", "res_ari_bridges", "res_ari_channels", "res_ari_endpoints", "res_ari_events",
            "res_ari_playbacks", "res_ari_recordings",
        ),
        ("res_websocket_client", "res_stasis_broadcast", "app_stasis_broadcast"),
    ),
    ModuleGroup("The ledgers.", ("cdr_custom", "cel_custom"), ("res_cdrel_custom",)),
)  # fmt: skip
"""``required`` ends Asterisk's start when it fails; ``optional`` is loaded where the build has it."""


SRTP = ModuleGroup("Encrypted audio, for trunks that ask for it.", ("res_srtp",))


def module_groups(has_module: Callable[[str], bool], *, srtp: bool = False) -> tuple[ModuleGroup, ...]:
    """The groups as this Asterisk can load them.

    :param srtp: with encrypted audio
    :raises ConfigError: a required module is not there
    """
    groups = (*MODULES, SRTP) if srtp else MODULES
    missing = [name for group in groups for name in group.required if not has_module(name)]
    if missing:
        raise ConfigError(
            f"this Asterisk lacks {', '.join(name + '.so' for name in missing)}",
            hint="install the distribution's complete asterisk-modules package, or let callrouter provide its own",
        )
    return tuple(
        ModuleGroup(
            group.reason,
            group.required,
            tuple(name for name in group.optional if has_module(name)),
            tuple(name for name in group.optional if not has_module(name)),
        )
        for group in groups
    )
