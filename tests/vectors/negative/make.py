#!/usr/bin/env python3
"""Writes the negative vectors of this folder, from the text of spa-proto/SPEC.md alone.

  make.py           writes steps.json (one packet against one state) and stories.json (several, over time)
  make.py --check   says whether the files are what it would write

Shares no code with ours, nor with the vectors one folder up: the primitives below are from their RFCs, in plain integers, slow and
obvious, and test themselves against the RFCs' own values first. The format is that of ../README.md; `spec` quotes the words of
SPEC section 8 that a case is about, and tests/check-vectors sees that no words of it are left over.
"""
import hashlib, hmac, json, os, sys

# ---- X25519, RFC 7748 section 5
P = 2**255 - 19


def x25519(k, u):
    k = int.from_bytes(k, 'little') & ~7 & ~(1 << 255) | 1 << 254
    x1 = (int.from_bytes(u, 'little') & ((1 << 255) - 1)) % P
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, 'little')


BASE = (9).to_bytes(32, 'little')

# ---- Ed25519, RFC 8032 section 5.1
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def _add(p, q):
    (x1, y1, z1, t1), (x2, y2, z2, t2) = p, q
    a, b = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * t1 * t2 * D % P, 2 * z1 * z2 % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(s, p):
    q = (0, 1, 1, 0)
    while s:
        if s & 1:
            q = _add(q, p)
        p, s = _add(p, p), s >> 1
    return q


def _point():
    y = 4 * pow(5, P - 2, P) % P
    xx = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x & 1:
        x = P - x
    return x, y, 1, x * y % P


B_POINT = _point()


def _bytes(p):
    x, y, z, _ = p
    inverse = pow(z, P - 2, P)
    x, y = x * inverse % P, y * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, 'little')


def _scalar(seed):
    h = hashlib.sha512(seed).digest()
    return int.from_bytes(h[:32], 'little') & ~7 & ~(1 << 255) & ~(1 << 254) | 1 << 254, h[32:]


def ed_public(seed):
    return _bytes(_times(_scalar(seed)[0], B_POINT))


def ed_sign(seed, text):
    a, prefix = _scalar(seed)
    mod_l = lambda data: int.from_bytes(hashlib.sha512(data).digest(), 'little') % L
    r = mod_l(prefix + text)
    big_r = _bytes(_times(r, B_POINT))
    s = (r + mod_l(big_r + _bytes(_times(a, B_POINT)) + text) * a) % L
    return big_r + s.to_bytes(32, 'little')


# ---- ChaCha20-Poly1305, RFC 8439 section 2
def chacha20(key, nonce, text, counter=0):
    out = bytearray()
    words = lambda data: [int.from_bytes(data[i:i + 4], 'little') for i in range(0, len(data), 4)]
    rotate = lambda x, n: (x << n | x >> 32 - n) & 0xffffffff
    for at in range(0, len(text), 64):
        start = words(b'expand 32-byte k') + words(key) + [counter + at // 64] + words(nonce)
        s = list(start)
        for _ in range(10):
            for a, b, c, d in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                               (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
                for (i, j, k), n in zip(((a, b, d), (c, d, b)) * 2, (16, 12, 8, 7)):
                    s[i] = s[i] + s[j] & 0xffffffff
                    s[k] = rotate(s[k] ^ s[i], n)
        stream = b''.join((x + y & 0xffffffff).to_bytes(4, 'little') for x, y in zip(s, start))
        out += bytes(x ^ y for x, y in zip(text[at:at + 64], stream))
    return bytes(out)


def aead(key, nonce, ad, text):
    c = chacha20(key, nonce, text, 1)
    pad = lambda data: data + bytes(-len(data) % 16)
    mac_key = chacha20(key, nonce, bytes(32))
    r = int.from_bytes(mac_key[:16], 'little') & 0x0ffffffc0ffffffc0ffffffc0fffffff
    data = pad(ad) + pad(c) + len(ad).to_bytes(8, 'little') + len(c).to_bytes(8, 'little')
    acc = 0
    for at in range(0, len(data), 16):
        acc = (acc + int.from_bytes(data[at:at + 16] + b'\1', 'little')) * r % (2**130 - 5)
    return c + (acc + int.from_bytes(mac_key[16:], 'little') & (1 << 128) - 1).to_bytes(16, 'little')


# ---- the notation of SPEC section 2
H = lambda *parts: hashlib.sha256(b''.join(parts)).digest()
Mac = lambda key, *parts: hmac.new(key, b''.join(parts), hashlib.sha256).digest()
Ext = lambda salt, ikm: hmac.new(salt, ikm, hashlib.sha256).digest()
Exp = lambda key, label, ctx: hmac.new(key, label + ctx + b'\1', hashlib.sha256).digest()


def self_test():
    x = bytes.fromhex
    scalar, u = 'a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4', 'e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c'
    assert x25519(x(scalar), x(u)) == x('c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552')  # RFC 7748 section 5.2
    seed = x('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60')
    assert ed_public(seed) == x('d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a')
    assert ed_sign(seed, b'') == x('e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e3970'
                                   '1cf9b46bd25bf5f0595bbe24655141438e7a100b')  # RFC 8032 section 7.1
    key, ad = bytes(range(0x80, 0xa0)), x('50515253c0c1c2c3c4c5c6c7')
    text = (b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.")
    assert aead(key, x('070000004041424344454647'), ad, text)[-16:] == x('1ae10b594f09e26a7e902ecbd0600691')  # RFC 8439 2.8.2


# ---- the wire, SPEC sections 3 to 5
NOW = 1_814_400_030_000  # the middle of a minute, 2027
F, SLOT = 90_000, 60_000
NONE = 0xffffffff
number = lambda value, size: value.to_bytes(size, 'big')
made = lambda name, size=32: hashlib.shake_256(b'negative ' + name.encode()).digest(size)
tlv = lambda kind, value=b'': bytes([kind, len(value)]) + value
rid = lambda name: H(b'KNOCK/1 resource', name.encode())[:4]

B0, B9 = made('b_0'), made('b_9')
K_CRED, K_INV, CRED, K_SESS = made('K_cred'), made('K_inv'), made('cred_id', 16), made('k_sess')
SEED, TOTP, SESSION, W = made('seed'), made('totp', 20), made('session', 8), x25519(made('w'), BASE)
GATEWAY = H(b'KNOCK/1 gateway', x25519(B0, BASE))[:16]
OPEN, ROAM, CLOSE, ENROL = range(4)
HOME, PORT = '198.51.100.7', 41_000


def code(at=NOW, digits=6):  # RFC 6238
    h = hmac.new(TOTP, number(at // 30_000, 8), hashlib.sha1).digest()
    at = h[19] & 15
    return (int.from_bytes(h[at:at + 4], 'big') & 0x7fffffff) % 10**digits


def wanted(*names):
    return tlv(1, b''.join(map(rid, names))) if names else b''


def knock(op=OPEN, flags=0, minutes=0, ts=NOW, totp=None, ext=None, fmt=1, slot=None, k=K_CRED, cred=CRED, gw=GATEWAY, kid=0, b=B0, seed=SEED,
          k_sess=K_SESS, e='e', e_bytes=None, spoil=(), dh=None):
    """A packet, right in all that is not said to be wrong. `spoil` names what happens between two layers."""
    if totp is None:
        totp = code() if op == OPEN else NONE
    if ext is None:
        ext = {OPEN: wanted('wiki') + tlv(3, W), ROAM: tlv(8, SESSION), CLOSE: tlv(8, SESSION),
               ENROL: tlv(5, ed_public(seed) + b'laptop')}[op]
    info = bytes([fmt << 4 | op, flags]) + number(minutes, 2) + number(ts, 8) + number(totp, 4)
    ext = ext + bytes(367 - len(ext))
    slot = number(NOW // SLOT if slot is None else slot, 8)
    cx = gw + cred
    tag, mac, obf, psk = (Exp(k, b'KNOCK/1 k_' + name, cx) for name in (b'tag', b'mac', b'obf', b'psk'))
    secret, public = made(e), x25519(b, BASE)
    big_e = e_bytes or x25519(secret, BASE)
    th1 = H(b'KNOCK/1 th1', gw, cred, slot, bytes([kid]), public, big_e)
    prk0 = Ext(psk, x25519(secret, public) if dh is None else dh)
    said = b'KNOCK/1 proof' + th1 + info + ext
    proof = ed_sign(seed, said) if op in (OPEN, ENROL) or fmt != 1 or op > 3 else Mac(k_sess, said) + bytes(32)
    if 'proof' in spoil:
        proof = bytes([proof[0] ^ 1]) + proof[1:]
    c = aead(Exp(prk0, b'KNOCK/1 knock', th1), bytes(12), th1, info + ext + proof)
    if 'C' in spoil:
        c = bytes([c[0] ^ 1]) + c[1:]
    body = bytes([kid]) + big_e + c
    v = Mac(mac, b'KNOCK/1 mac', slot, body)[:8]
    if 'V' in spoil:
        v = v[:7] + bytes([v[7] ^ 1])
    t = Mac(tag, b'KNOCK/1 tag', slot)[:8]
    if t[0] in (1, 2, 3, 4) and t[1:4] == bytes(3):
        t = bytes(x ^ 255 for x in t)
    if 'T' in spoil:
        t = t[:7] + bytes([t[7] ^ 1])
    masked = body if 'mask' in spoil else chacha20(obf, v + bytes(4), body)
    return t + v + masked


def v_of(packet):
    return packet[8:16]


def state(credential=None, **other):
    person = {'totp_secret': TOTP.hex(), 'digits': 6, 'period': 30, 'last_step': NOW // 30_000 - 9, 'recovery_codes': [], 'has_totp': True}
    key = lambda secret, until: {'private': secret.hex(), 'accepted_until': until}
    mine = {'cred_id': CRED.hex(), 'person': 'p', 'machine': False, 'Q': ed_public(SEED).hex(), 'resources': ['wiki', 'git'],
            'keys': [{'kind': 'live', 'K_cred': K_CRED.hex()}], 'last_ts': NOW - 1_000_000}
    mine.update(credential or {})
    return {'now': NOW, 'own_addresses': ['192.0.2.1', '2001:db8::1'], 'persons': {'p': person}, 'credentials': [mine],
            'knock_keys': {'0': key(B0, NOW + 10**13), '9': key(B9, NOW + 1)}, **other}


ENROLLING = {'Q': '', 'keys': [{'kind': 'inv', 'K_cred': K_INV.hex()}]}
LIVE = {'session': {'id': SESSION.hex(), 'k_sess': K_SESS.hex(), 'not_after': NOW + 600_000, 'W': x25519(made('w0'), BASE).hex()}}
OVER = {'session': {**LIVE['session'], 'not_after': NOW - 1}}
SMALL = bytes(32)

steps = []


def case(spec, step, name, packet, credential=None, src=HOME, sport=PORT, on_lo=False, fragment=False, now=NOW, **other):
    steps.append({'name': name, 'spec': spec, 'step': step, 'also_accept': [], 'unspecified': '', 'state': state(credential, **other),
                  'packet': packet.hex(), 'fragment': fragment, 'src': src, 'sport': sport, 'on_lo': on_lo, 'now': now})


def step_0():
    right = knock()
    for size in (0, 511, 513):
        case('payload 512 bytes', 0, 'size_%d' % size, (right + bytes(1))[:size])
    case('no fragment', 0, 'a_fragment', right, fragment=True)
    for kind in (1, 2, 3, 4):
        case('not a WireGuard header', 0, 'header_%d' % kind, bytes([kind, 0, 0, 0]) + right[4:])


def step_1():
    right = knock()
    for src in ('224.0.0.9', '239.1.2.3', '255.255.255.255', 'ff05::2'):
        case('source is a unicast address', 1, 'from_' + src, right, src=src)
    for src in ('192.0.2.1', '2001:db8::1'):
        case('that is not ours', 1, 'from_' + src, right, src=src)
    for src in ('0.0.0.0', '::'):
        case('not unspecified', 1, 'from_' + src, right, src=src)
    for src in ('127.0.0.1', '127.255.255.254', '::1'):
        case('not loopback unless it came on lo', 1, 'from_' + src, right, src=src)
    case('not loopback unless it came on lo', 12, 'control_on_lo', right, src='127.0.0.1', on_lo=True)
    case('port not 0', 1, 'from_port_0', right, sport=0)
    case('look up T', 1, 'tag_flipped', knock(spoil=('T',)))
    case('look up T', 1, 'tag_of_a_past_slot', knock(slot=NOW // SLOT - 3))
    case('look up T', 1, 'tag_of_a_slot_to_come', knock(slot=NOW // SLOT + 3))
    case('look up T', 1, 'tag_of_another_gateway', knock(gw=made('other gateway', 16)))
    case('look up T', 1, 'clock_not_trusted', right, clock_trusted=False)


def step_2():
    right = knock()
    # Its tags leave the table with it, so the look-up of step 1 does not find it.
    case('credential enabled', 1, 'disabled', right, {'enabled': False})
    case('not expired', 2, 'expires_now', right, {'expires': NOW})
    case('not expired', 12, 'control_expires_later', right, {'expires': NOW + 1})
    case('V not spent', 2, 'spent', right, {'spent': [{'slot': NOW // SLOT, 'V': v_of(right).hex()}]})


def step_3_and_4():
    case('V verifies', 3, 'V_flipped', knock(spoil=('V',)))
    case('unmask', 3, 'sent_unmasked', knock(spoil=('mask',)))
    flipped = bytearray(knock())
    for at, name in ((16, 'kid'), (17, 'first_of_E'), (48, 'last_of_E'), (49, 'first_of_C'), (511, 'last_of_C')):
        one = bytearray(flipped)
        one[at] ^= 0x80
        case('V verifies', 3, name + '_flipped', bytes(one))
    case('message bucket of the credential', 4, 'no_message_token', knock(), {'message_tokens': 0})
    case('message bucket of the credential', 12, 'control_one_message_token', knock(), {'message_tokens': 1})


def step_6():
    case('kid live', 6, 'kid_of_nobody', knock(kid=77))
    case('kid live', 6, 'kid_over', knock(kid=9, b=B9), now=NOW + 1)
    case('kid live', 12, 'control_kid_last_moment', knock(kid=9, b=B9))
    for name, e_bytes in (('zero', SMALL), ('one', number(1, 32)[::-1]), ('minus_one', (P - 1).to_bytes(32, 'little')),
                          ('p', P.to_bytes(32, 'little')), ('p_plus_1', (P + 1).to_bytes(32, 'little')),
                          ('order_8', bytes.fromhex('e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800'))):
        # What the gateway would compute if it did not look: all zero.
        case('dh contributory', 6, 'E_' + name, knock(e_bytes=e_bytes, dh=SMALL))
    case('AEAD opens', 6, 'C_flipped_before_V', knock(spoil=('C',)))
    case('AEAD opens', 6, 'dh_of_another_key', knock(dh=made('dh')))


def step_7():
    w, wiki = tlv(3, W), wanted('wiki')
    for fmt in (0, 2, 15):
        case('format', 7, 'format_%d' % fmt, knock(fmt=fmt))
    for op in (4, 9, 15):
        case('op', 7, 'op_%d' % op, knock(op=op, ext=wiki + w, totp=code()))
    for bit in range(1, 8):
        case('flags', 7, 'flag_%d' % bit, knock(flags=1 << bit))
    for name, ext in (('W_twice', w + w), ('W_short', tlv(3, W[:31])), ('overrun', wiki + w + bytes([6, 255])), ('critical', w + tlv(0x91)),
                      ('session_in_open', w + tlv(8, SESSION)), ('enrol_in_open', w + tlv(5, W + b'x')), ('resources_and_all', wiki + tlv(2) + w),
                      ('seventeen_resources', tlv(1, bytes(68)) + w), ('half_a_resource', tlv(1, bytes(6)) + w), ('no_resource', tlv(1) + w),
                      ('all_says_more', tlv(2, b'x') + w), ('posture_long', w + tlv(4, bytes(225))), ('source_short', w + tlv(6, bytes(15)))):
        case('TLVs', 7, name, knock(ext=ext))
    case('TLVs', 12, 'control_unknown_is_skipped', knock(ext=wiki + tlv(0x11, b'new') + w))
    case('required TLVs of the op', 7, 'open_without_W', knock(ext=wiki))
    for op, name in ((ROAM, 'roam'), (CLOSE, 'close')):
        case('required TLVs of the op', 7, name + '_without_session', knock(op=op, ext=b''), LIVE)
        case('TLVs', 7, name + '_with_a_code', knock(op=op, totp=code()), LIVE)
    case('required TLVs of the op', 7, 'enrol_without_enrol', knock(op=ENROL, k=K_INV, ext=b''), ENROLLING)
    case('required TLVs of the op', 12, 'control_enrol', knock(op=ENROL, k=K_INV), ENROLLING)
    case('exact padding', 7, 'padding_ends_in_1', knock(ext=(wiki + w).ljust(366, b'\0') + b'\1'))
    case('exact padding', 7, 'a_tlv_after_the_end', knock(ext=wiki + b'\0' + w))
    mapped = lambda text: bytes(10) + b'\xff\xff' + bytes(map(int, text.split('.')))
    case('SOURCE matches', 7, 'source_of_another', knock(ext=wiki + w + tlv(6, mapped('198.51.100.8'))))
    case('SOURCE matches', 12, 'control_source', knock(ext=wiki + w + tlv(6, mapped(HOME))))


def step_8():
    for name, ts in (('old', NOW - F - 1), ('new', NOW + F + 1), ('zero', 0), ('all_ones', 2**64 - 1)):
        case('\\|now − ts\\| ≤ F', 8, 'ts_' + name, knock(ts=ts))
    for name, ts in (('oldest', NOW - F), ('newest', NOW + F)):
        case('\\|now − ts\\| ≤ F', 12, 'control_ts_' + name, knock(ts=ts))
    case('`ts > last_ts`', 8, 'ts_is_the_last', knock(), {'last_ts': NOW})
    case('`ts > last_ts`', 8, 'ts_before_the_last', knock(), {'last_ts': NOW + 1})
    case('`ts > last_ts`', 12, 'control_ts_after_the_last', knock(), {'last_ts': NOW - 1})
    case('`ts > last_ts`', 8, 'the_clock_ran_ahead_once', knock(), {'last_ts': NOW + F + 1})
    failed = lambda ago: {'failed_ts': [{'ts': NOW, 'at': NOW - ago}]}
    case('ts not one that failed step 10 within the last 2 F', 8, 'ts_failed', knock(), failed(1))
    case('ts not one that failed step 10 within the last 2 F', 12, 'control_ts_failed_long_ago', knock(), failed(2 * F + 1_000))
    for op, name in ((ROAM, 'roam'), (CLOSE, 'close')):
        case('SESSION is live', 8, name + '_nobodys', knock(op=op))
        case('SESSION is live', 8, name + '_over', knock(op=op), OVER)
        case('SESSION is live', 12, 'control_' + name, knock(op=op), LIVE)


def step_9_and_10():
    none = {'failure_tokens': 0}
    case('failure bucket', 9, 'no_failure_token', knock(), none)
    case('failure bucket', 9, 'no_failure_token_wrong_password', knock(seed=made('wrong')), none)
    case('failure bucket', 9, 'roam_no_failure_token', knock(op=ROAM), {**LIVE, **none})
    case('failure bucket', 12, 'control_one_failure_token', knock(), {'failure_tokens': 1})
    both = '**both** proof and second factor'
    case(both, 10, 'wrong_password', knock(seed=made('wrong')))
    case(both, 10, 'proof_flipped', knock(spoil=('proof',)))
    case(both, 10, 'no_code', knock(totp=NONE))
    case(both, 10, 'code_of_no_step', knock(totp=next(c for c in range(10**6) if c not in {code(NOW + d) for d in (-30_000, 0, 30_000)})))
    case(both, 10, 'code_of_two_steps_ago', knock(totp=code(NOW - 60_000)))
    case(both, 10, 'code_of_two_steps_to_come', knock(totp=code(NOW + 60_000)))
    case(both, 10, 'both_wrong', knock(seed=made('wrong'), totp=NONE))
    case(both, 10, 'recovery_code_of_nobody', knock(totp=NONE, ext=wanted('wiki') + tlv(3, W) + tlv(7, made('recovery', 16))))
    case(both, 10, 'machine_with_a_code', knock(), {'machine': True})
    case(both, 12, 'control_machine', knock(totp=NONE), {'machine': True})
    for op, name in ((ROAM, 'roam'), (CLOSE, 'close')):
        case(both, 10, name + '_wrong_session_key', knock(op=op, k_sess=made('wrong')), LIVE)


def step_11():
    case('policy', 11, 'nothing_is_allowed', knock(ext=wanted('db') + tlv(3, W)))
    case('capacity', 11, 'full', knock(), capacity=0)
    for name, w in (('zero', SMALL), ('minus_one', (P - 1).to_bytes(32, 'little')), ('p', P.to_bytes(32, 'little'))):
        case('a W of small order', 11, 'W_' + name, knock(ext=wanted('wiki') + tlv(3, w)))
    case('of the gateway', 11, 'W_of_the_gateway', knock(), wg_pub=W.hex())
    second = state({'cred_id': made('other', 16).hex(), 'person': 'q', 'keys': [{'kind': 'live', 'K_cred': made('other K').hex()}], 'session': {
        **LIVE['session'], 'W': W.hex()}})['credentials'][0]
    both = state()['credentials'] + [second]
    persons = {**state()['persons'], 'q': state()['persons']['p']}
    case('or of another live session', 11, 'W_of_another', knock(), credentials=both, persons=persons)


stories = []


def story(spec, name, events, credential=None):
    stories.append({'name': name, 'spec': spec, 'unspecified': '', 'state': state(credential), 'events': events})


def at_once(at, *packets):
    return {'type': 'batch', 'at': at, 'src': HOME, 'sport': PORT, 'on_lo': False, 'packets': [packet.hex() for packet, _ in packets],
            'expect': [{'step': step} for _, step in packets]}


def one(at, packet, step):
    return {'type': 'packet', 'at': at, 'src': HOME, 'sport': PORT, 'on_lo': False, 'packet': packet.hex(), 'crash': None,
            'e_s': made('e_s %d' % at).hex(), 'new_session_id': made('id %d' % at, 8).hex(), 'expect': {'step': step, 'status': None}}


def wrong(n, at=NOW):
    """The n-th try with a wrong password, each a transaction of its own."""
    return knock(seed=made('wrong'), ts=at + n, e='wrong %d' % n, slot=at // SLOT, totp=NONE)


def over_time():
    tries = [wrong(n) for n in range(9)]
    story('burst 6', 'the_seventh_at_once_finds_no_token', [at_once(NOW, *[(t, 5) for t in tries[:5]], (tries[5], 10), (tries[6], 4))])
    story('+1 per 2 s', 'a_token_comes_back_in_two_seconds', [
        at_once(NOW, (tries[0], 10), (tries[1], 4)), at_once(NOW + 1_999, (tries[2], 4)), at_once(NOW + 2_000, (tries[3], 10), (tries[4], 4))],
        {'message_tokens': 1})
    story('then V into the spent set', 'who_passed_step_4_is_spent_who_did_not_is_not', [
        at_once(NOW, (tries[0], 10), (tries[1], 4)), at_once(NOW + 2_000, (tries[0], 2), (tries[1], 10), (tries[1], 2))], {'message_tokens': 1})
    story('queue depth 1 per credential', 'the_second_pushes_out_the_first', [at_once(NOW, (tries[0], 5), (tries[1], 10))])
    story('newest wins', 'the_third_of_three_is_worked_on', [at_once(NOW, (tries[0], 5), (tries[1], 5), (tries[2], 10))])
    at = lambda n: NOW + 2_000 * n
    five = [one(at(n), wrong(n, at(n)), 10) for n in range(5)]
    story('burst 5', 'the_sixth_failure_is_not_even_looked_at', five + [one(at(5), wrong(5, at(5)), 9)])
    later = at(4) + 600_000
    story('+1 per 10 min', 'a_failure_token_comes_back_in_ten_minutes', five + [
        one(NOW + 599_999, wrong(5, NOW + 599_999), 9), one(later, wrong(6, later), 10), one(later + 2_000, wrong(7, later + 2_000), 9)])
    story('on failure take one from the failure bucket', 'the_last_token_is_taken_by_a_failure', [
        one(NOW, wrong(0), 10), one(at(1), wrong(1, at(1)), 9)], {'failure_tokens': 1})
    story('one token after a restart', 'one_failure_after_a_restart', [
        {'type': 'restart', 'at': NOW, 'lost': [], 'kept': [], 'after': {}}, one(at(1), wrong(1, at(1)), 10), one(at(2), wrong(2, at(2)), 9)])
    story('100 failures in a row', 'the_hundredth_disables', [
        one(NOW, wrong(0), 10), one(at(1), knock(ts=at(1), e='right', totp=code(at(1))), 1)], {'failures_in_a_row': 99})


def texts():
    for make in (step_0, step_1, step_2, step_3_and_4, step_6, step_7, step_8, step_9_and_10, step_11, over_time):
        make()
    for name, kind, vectors in (('steps', 'negative', steps), ('stories', 'replay', stories)):
        lines = ',\n'.join(json.dumps(vector, ensure_ascii=False, separators=(',', ':')) for vector in vectors)
        yield name + '.json', '{"spec":"KNOCK/1","kind":"%s","vectors":[\n%s\n]}\n' % (kind, lines)


if __name__ == '__main__':
    self_test()
    here = os.path.dirname(os.path.abspath(__file__))
    different = False
    for name, text in texts():
        path = os.path.join(here, name)
        if sys.argv[1:] == ['--check']:
            same = os.path.exists(path) and open(path, encoding='utf-8').read() == text
            print('%s: %s' % (name, 'as written' if same else 'NOT what make.py writes'))
            different |= not same
        else:
            open(path, 'w', encoding='utf-8').write(text)
            print('%s: %d vectors' % (name, text.count('"name"')))
    sys.exit(different)
