"""What a test, a demo or a test call of a telephone server needs. Users may import it too.

``carrier``         a simulated carrier with business phones: real SIP and RTP from a second, private Asterisk
``carrier_script``  what its callers do and how its phones behave, as values
``carrier_legs``    what came of it: ``CallResult`` for the caller, ``PhoneCall`` for the phone
``audio``           ears: levels, tones and speech in what each end heard
``speech``          sounds to play: spoken sentences, tones
``sipp``            SIPp scenarios: odd SIP that no Asterisk sends, and an independent witness
"""
