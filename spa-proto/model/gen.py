#!/usr/bin/env python3
"""Writes the ProVerif models of KNOCK/1 and, with `run`, checks them against EXPECTED.

  python3 gen.py               write the .pv files
  PROVERIF=/path python3 gen.py run   write them, run them two at a time, write results.txt
"""
import os, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor

TERMS = '''free c: channel.                       (* the network: belongs to the attacker *)
type G. type exponent. type skey. type pkey. type key.

(* X25519 *)
const g: G.
fun exp(G, exponent): G.
equation forall x: exponent, y: exponent; exp(exp(g, x), y) = exp(exp(g, y), x).

(* Ed25519 *)
fun spk(skey): pkey.
fun sign(bitstring, skey): bitstring.
reduc forall m: bitstring, k: skey; checksign(sign(m, k), spk(k), m) = true.

(* AEAD with a key used once; outer mask (unmask needs the V it was made with); MACs and tags *)
fun aead(key, bitstring, bitstring): bitstring.
reduc forall k: key, ad: bitstring, m: bitstring; open(k, ad, aead(k, ad, m)) = m.
fun mask(key, bitstring, bitstring): bitstring.
reduc forall k: key, v: bitstring, m: bitstring; unmask(k, v, mask(k, v, m)) = m.
fun mac(key, bitstring): bitstring.

(* hash and KDFs *)
fun h(bitstring): bitstring.
fun hkdf(key, bitstring): key.
fun extract(key, G): key.                             (* Ext(key, X25519 result) *)
fun argon(bitstring, bitstring): bitstring.
fun proofkey(bitstring, bitstring, bitstring): skey.  (* (r, a, gw_id) *)
fun totp(bitstring, bitstring): bitstring.            (* (secret, step) *)
const Ltag, Lmac, Lobf, Lpsk, Lknock, Lproof, Lreply, Lwg, Lcred: bitstring [data].
'''
ROLES = '''
free salt, gw1, gw2, credA: bitstring.
free pw: bitstring [private].
free dataC, dataG: bitstring [private].   (* what client and gateway send through the tunnel *)
event Sent(bitstring, bitstring, bitstring).            (* client: credential, ts, knock *)
event Coded(bitstring).                                 (* the person used the code of this step *)
event Accepted(bitstring, bitstring, bitstring, key).   (* gateway: credential, ts, knock, wg_psk *)
event Step(bitstring).                                  (* gateway accepted the code of this step *)
event Done(bitstring, bitstring, key).                  (* client: credential, ts, wg_psk *)
@QUERIES@
(* The slot is chosen by the attacker on both sides: the proofs do not lean on clocks.
   The gateway takes one knock for each ts (last_ts) and each step (last_step). *)
let Client(gw: bitstring, cred: bitstring, K: key, r: bitstring, tkey: bitstring, B: G, ts: bitstring, step: bitstring) =
  in(c, slot: bitstring);
  new e: exponent; new ext: bitstring;
  let E = exp(g, e) in
  let th1 = h((gw, cred, slot, B, E)) in
  let prk0 = extract(hkdf(K, Lpsk), exp(B, e)) in
  let info = (ts, totp(tkey, step), ext) in
  let sg = sign((Lproof, th1, info), proofkey(r, argon(pw, salt), gw)) in
  let C = aead(hkdf(prk0, (Lknock, th1)), th1, (info, sg)) in
  let V = mac(hkdf(K, Lmac), (slot, E, C)) in
  let thk = h((th1, C)) in
  event Coded(step);
  event Sent(cred, ts, thk);
  out(c, (mac(hkdf(K, Ltag), slot), V, mask(hkdf(K, Lobf), V, (E, C))));
  in(c, (Es: G, C2: bitstring));
  let th2 = h((thk, Es)) in
  let prk1 = extract(prk0, exp(Es, e)) in
  let payload = open(hkdf(prk1, (Lreply, th2)), th2, C2) in
  let wg = hkdf(prk1, (Lwg, h((th2, C2)))) in
  if gw = gw1 then
  event Done(cred, ts, wg);@CLIENT_END@

let Gateway(gw: bitstring, cred: bitstring, K: key, Q: pkey, tkey: bitstring, b: exponent, ts: bitstring, step: bitstring) =
  in(c, (slot: bitstring, T: bitstring, V: bitstring, z: bitstring));
  if T = mac(hkdf(K, Ltag), slot) then
  let (E: G, C: bitstring) = unmask(hkdf(K, Lobf), V, z) in
  if V = mac(hkdf(K, Lmac), (slot, E, C)) then
  let th1 = h((gw, cred, slot, exp(g, b), E)) in
  let prk0 = extract(hkdf(K, Lpsk), exp(E, b)) in
  let (info: bitstring, sg: bitstring) = open(hkdf(prk0, (Lknock, th1)), th1, C) in
  let (=ts, =totp(tkey, step), ext: bitstring) = info in
  if checksign(sg, Q, (Lproof, th1, info)) = true then
  new es: exponent; new payload: bitstring;
  let Es = exp(g, es) in
  let thk = h((th1, C)) in
  let th2 = h((thk, Es)) in
  let prk1 = extract(prk0, exp(E, es)) in
  let C2 = aead(hkdf(prk1, (Lreply, th2)), th2, payload) in
  let wg = hkdf(prk1, (Lwg, h((th2, C2)))) in
  event Step(step);
  event Accepted(cred, ts, thk, wg);
  out(c, (Es, C2));@GATEWAY_END@

process
  new K: key; new r: bitstring; new tkey: bitstring; new b: exponent;
  let Q = spk(proofkey(r, argon(pw, salt), gw1)) in
  let B = exp(g, b) in
  out(c, B);@LEAK@
  ( (! new ts: bitstring; new step: bitstring; out(c, (ts, step));
       ( Client(gw1, credA, K, r, tkey, B, ts, step) | Gateway(gw1, credA, K, Q, tkey, b, ts, step) ))@MORE@
  )
'''
CEND = '\n  out(c, aead(wg, salt, dataC)).'
GEND = '\n  out(c, aead(wg, (salt, salt), dataG)).'
ROGUE_LEAK = '''
  (* gateway 2 is the attacker's; the same device and password are enrolled there *)
  new K2: key; new b2: exponent; out(c, (K2, b2));'''
ROGUE = '''
  | (! new ts2: bitstring; new step2: bitstring; out(c, (ts2, step2));
       Client(gw2, credA, K2, r, tkey, exp(g, b2), ts2, step2))'''
SEC = 'query attacker(dataC).\nquery attacker(dataG).\n'
SEC1 = 'query attacker(dataC) phase 1.\nquery attacker(dataG) phase 1.\n'
GW = 'query cr: bitstring, ts: bitstring, t: bitstring, k: key;\n  inj-event(Accepted(cr, ts, t, k)) ==> inj-event(Sent(cr, ts, t)).\n'
CL = 'query cr: bitstring, ts: bitstring, t: bitstring, k: key;\n  inj-event(Done(cr, ts, k)) ==> inj-event(Accepted(cr, ts, t, k)).\n'
FILES, EXPECTED, CLAIM = {}, {}, {}

def add(name, claim, expected, text):
    CLAIM[name], EXPECTED[name] = claim, expected
    FILES[name] = '(* KNOCK/1, %s: %s\n   Expected: %s *)\n' % (name, claim, ', '.join(expected)) + text

def model(name, claim, expected, queries, leak='', more='', cend=CEND, gend=GEND, decl=''):
    t = TERMS + decl + ROLES
    for k, v in dict(QUERIES=queries, LEAK=leak and '\n  out(c, (%s));' % leak if not leak.startswith('\n') else leak,
                     MORE=more, CLIENT_END=cend, GATEWAY_END=gend).items():
        t = t.replace('@%s@' % k, v)
    add(name, claim, expected, t)

T, F = 'true', 'false'
model('01_honest_run', 'an honest run ends (false = the end is reached).', [F],
      'query cr: bitstring, ts: bitstring, k: key; event(Done(cr, ts, k)).\n')
model('02_network', 'an active attacker who also runs another gateway of the same device and password learns no tunnel data;\n'
      '   what the gateway accepts was sent by the client, once; what the client accepts was granted by the gateway, once.',
      [T]*4, SEC + GW + CL, ROGUE_LEAK, ROGUE)
model('03_store', 'a stolen store (K_cred, TOTP secret, Q) gives neither login nor tunnel data, nor lets the thief pose as the gateway.',
      [T]*4, SEC + GW + CL, 'K, tkey, Q')
model('04_store_and_keys', 'a stolen store with all private keys of the gateway gives no login.', [T], GW, 'K, tkey, Q, b')
model('05_store_keys_posing', 'the thief of store and private keys can pose as the gateway (known limit).', [F], CL, 'K, tkey, Q, b')
model('06_store_keys_password', 'store, private keys and the password give no login: r is missing.', [T], GW, 'K, tkey, Q, b, pw')
model('07_device', 'a stolen device (K_cred, r) gives neither login nor tunnel data.', [T]*4, SEC + GW + CL, 'K, r')
model('08_phone', 'a stolen phone (TOTP secret) gives neither login nor tunnel data.', [T]*4, SEC + GW + CL, 'tkey')
model('09_device_and_phone', 'device and phone give neither login nor tunnel data: the password is missing.', [T]*4, SEC + GW + CL, 'K, r, tkey')
model('10_device_and_password', 'device and password: every code the gateway accepts was used by the person.', [T],
      'query s: bitstring; event(Step(s)) ==> event(Coded(s)).\n', 'K, r, pw')
model('11_past_sessions', 'when every long-term secret leaks later, past tunnel data stays secret.', [T]*2, SEC1,
      more='\n  | (phase 1; out(c, (K, r, pw, tkey, b)))')
GW2, CL2 = GW.replace('inj-', ''), CL.replace('inj-', '')
model('14_repeats', 'as 02 when one transaction is sent and answered any number of times, with fresh keys (§10);\n'
      '   agreement without counting, since the spent set is not in the model.', [T]*4, SEC + GW2 + CL2)
FILES['14_repeats'] = FILES['14_repeats'].replace('''( Client(gw1, credA, K, r, tkey, B, ts, step) | Gateway(''',
  '''( (! Client(gw1, credA, K, r, tkey, B, ts, step)) | ! Gateway(''')
EXPS = 'table broken(exponent).   (* every X25519 secret: handed out in phase 1, the quantum computer *)\n'
QUANT = '\n  | (! phase 1; get broken(x) in out(c, x))\n  | (phase 1; out(c, (%s)))'
model('12_quantum_recorder', 'a recorder who later breaks every X25519 key and has r, password and TOTP secret, but not K_cred,\n'
      '   learns no tunnel data.', [T]*2, SEC1, more=QUANT % 'b, r, pw, tkey',
      cend='\n  insert broken(e);' + CEND, gend='\n  insert broken(es);' + GEND, decl=EXPS)
KEM = EXPS + '''
(* ML-KEM-768 *)
type dkey. type ekey.
fun ek(dkey): ekey.
fun ct(ekey, bitstring): bitstring.
fun ss(ekey, bitstring): bitstring.
reduc forall d: dkey, m: bitstring; decap(d, ct(ek(d), m)) = ss(ek(d), m).
fun rekey(key, bitstring, G, bitstring): key.           (* (wg_psk, ss, dh, H(transcript)) *)
const up, down, up2, down2: bitstring [data].
free lateC, lateG: bitstring [private].                 (* sent after the rekey *)
event Rekeyed(key).
'''
# A tunnel whose X25519 parts are all broken is as strong as its PSK: aead under wg_psk.
model('13_quantum_with_K_cred', 'a recorder who later breaks every X25519 key and has K_cred and all other secrets reads the data\n'
      '   sent before the rekey (false), not the data sent after it (true).  The tunnel stands for its PSK: its own DHs are broken too.',
      [F, F, T, T], 'query k: key; event(Rekeyed(k)).          (* false: the rekey is reached *)\n'
      'query attacker(dataC) phase 1.\nquery attacker(lateC) phase 1.\nquery attacker(lateG) phase 1.\n',
      more=QUANT % 'K, b, r, pw, tkey', decl=KEM,
      cend='''
  insert broken(e);
  out(c, aead(wg, salt, dataC));
  new d: dkey; new x: exponent; insert broken(x);
  out(c, aead(wg, up, (exp(g, x), ek(d))));
  in(c, y: bitstring);
  let (Xs: G, k: bitstring) = open(wg, down, y) in
  let psk2 = rekey(wg, decap(d, k), exp(Xs, x), h((exp(g, x), ek(d), Xs, k))) in
  out(c, aead(psk2, up2, lateC));
  in(c, z: bitstring);
  if open(psk2, down2, z) = lateG then
  event Rekeyed(psk2).''',
      gend='''
  insert broken(es);
  in(c, y: bitstring);
  let (Xc: G, pk: ekey) = open(wg, up, y) in
  new m: bitstring; new x: exponent; insert broken(x);
  let k = ct(pk, m) in
  out(c, aead(wg, down, (exp(g, x), k)));
  let psk2 = rekey(wg, ss(pk, m), exp(Xc, x), h((Xc, pk, exp(g, x), k))) in
  out(c, aead(psk2, down2, lateG)).''')
model('20_guess_device', 'a thief of device and phone cannot test passwords against recorded and provoked traffic.', [T],
      'weaksecret pw.\n', 'K, r, tkey', cend='\n  out(c, aead(wg, salt, salt)).', gend='\n  0.')
model('21_guess_store', 'a thief of store and private keys of the gateway cannot test passwords.', [T],
      'weaksecret pw.\n', 'K, tkey, Q, b', cend='\n  0.', gend='\n  0.')
model('22_guess_device_and_rogue', 'a thief of the device who also runs a gateway where the same device and password are used can\n'
      '   test passwords (known limit, G4).', [F], 'weaksecret pw.\n', ROGUE_LEAK + '\n  out(c, (K, r));', ROGUE, cend='\n  0.', gend='\n  0.')

UNLINK = '''
const Lrtag, Lrmask: bitstring [data].
free gw: bitstring.
let Exchange(cred: bitstring, K: key, q: skey, b: exponent, slot: bitstring) =
  new e: exponent; new info: bitstring; new es: exponent; new payload: bitstring;
  let E = exp(g, e) in
  let th1 = h((gw, cred, slot, exp(g, b), E)) in
  let prk0 = extract(hkdf(K, Lpsk), exp(exp(g, b), e)) in
  let C = aead(hkdf(prk0, (Lknock, th1)), th1, (info, sign((Lproof, th1, info), q))) in
  let V = mac(hkdf(K, Lmac), (slot, E, C)) in
  let thk = h((th1, C)) in
  let Es = exp(g, es) in
  let th2 = h((thk, Es)) in
  let C2 = aead(hkdf(extract(prk0, exp(Es, e)), (Lreply, th2)), th2, payload) in
  out(c, (mac(hkdf(K, Ltag), slot), V, mask(hkdf(K, Lobf), V, (E, C))));
  out(c, (mac(hkdf(prk0, Lrtag), thk), mask(hkdf(prk0, (Lrmask, thk)), salt, (Es, Es)), C2)).
free salt: bitstring.
process
  new KA: key; new KB: key; new qA: skey; new qB: skey; new a: bitstring; new b2: bitstring; new b: exponent;
  out(c, (exp(g, b), a, b2));
  ! ( new slot1: bitstring; new slot2: bitstring; out(c, (slot1, slot2));
      ( Exchange(a, KA, qA, b, slot1)
      | Exchange(choice[a, b2], choice[KA, KB], choice[qA, qB], b, @SLOT@) ) )
'''.replace('free salt: bitstring.\nprocess', 'process').replace('free gw: bitstring.', 'free gw, salt: bitstring.')
add('30_unlinkable', 'an observer who knows the gateway\'s public keys cannot tell whether the knocks and replies of two slots come\n'
    '   from one device or from two.', [T], TERMS + UNLINK.replace('@SLOT@', 'slot2'))
add('31_linkable_in_slot', 'within one slot two knocks of one device carry the same tag (known limit, G6).\n'
    '   ProVerif does not refute equivalences: it says "cannot be proved", shown as "open".', ['open'],
    TERMS + UNLINK.replace('@SLOT@', 'slot1'))

ENROL = '''
free salt, gw1, credA: bitstring.
free pw: bitstring [private].
free dataC, dataG: bitstring [private].              (* any use of k_cred by client and gateway *)
event Asked(pkey).                                   (* client sends ENROL *)
event Enrolled(pkey, key, bitstring).                (* gateway: Q, k_cred, TOTP secret *)
event Ready(pkey, key, bitstring).                   (* client: the same *)
query q: pkey, k: key, s: bitstring; event(Ready(q, k, s)).      (* false: the end is reached *)
query attacker(new tkey)@PH@.                        (* the TOTP secret *)
query attacker(dataC)@PH@.
query attacker(dataG)@PH@.
query q: pkey, k: key, s: bitstring; event(Enrolled(q, k, s)) ==> event(Asked(q)).
query q: pkey, k: key, s: bitstring; inj-event(Ready(q, k, s)) ==> inj-event(Enrolled(q, k, s)).

(* The outer layer (T, V, mask) is left out: it is under keys the attacker may have here.
   Repeats: the client asks, and the gateway answers with a further candidate key, any number of times. *)
let Client(Kinv: key, r: bitstring, B: G) =
  let q = proofkey(r, argon(pw, salt), gw1) in
  new e: exponent;
  let th1 = h((gw1, credA, B, exp(g, e))) in
  let prk0 = extract(hkdf(Kinv, Lpsk), exp(B, e)) in
  let C = aead(hkdf(prk0, (Lknock, th1)), th1, (spk(q), sign((Lproof, th1, spk(q)), q))) in
  let thk = h((th1, C)) in
  event Asked(spk(q));
  out(c, (exp(g, e), C));
  in(c, (Es: G, C2: bitstring));
  let th2 = h((thk, Es)) in
  let prk1 = extract(prk0, exp(Es, e)) in
  let tk = open(hkdf(prk1, (Lreply, th2)), th2, C2) in
  let kcred = hkdf(prk1, (Lcred, h((th2, C2)))) in
  event Ready(spk(q), kcred, tk);
  out(c, aead(kcred, salt, dataC)).

let Gateway(Kinv: key, b: exponent, tkey: bitstring, honestQ: pkey) =
  in(c, (E: G, C: bitstring));
  let th1 = h((gw1, credA, exp(g, b), E)) in
  let prk0 = extract(hkdf(Kinv, Lpsk), exp(E, b)) in
  let (Q: pkey, sg: bitstring) = open(hkdf(prk0, (Lknock, th1)), th1, C) in
  if checksign(sg, Q, (Lproof, th1, Q)) = true then
  @COMPARE@new es: exponent;
  let th2 = h((h((th1, C)), exp(g, es))) in
  let prk1 = extract(prk0, exp(E, es)) in
  let C2 = aead(hkdf(prk1, (Lreply, th2)), th2, tkey) in
  let kcred = hkdf(prk1, (Lcred, h((th2, C2)))) in
  event Enrolled(Q, kcred, tkey);
  out(c, (exp(g, es), C2));
  out(c, aead(kcred, (salt, salt), dataG)).

process
  new Kinv: key; new r: bitstring; new tkey: bitstring; new b: exponent;
  out(c, exp(g, b));@LEAK@
  ( (! Client(Kinv, r, exp(g, b)))
  | (! Gateway(Kinv, b, tkey, spk(proofkey(r, argon(pw, salt), gw1))))@MORE@ )
'''
def enrol(name, claim, expected, ph, compare, leak, more):
    t = TERMS + ENROL
    for k, v in dict(PH=' phase 1' if ph else '', COMPARE=compare, LEAK=leak, MORE=more).items():
        t = t.replace('@%s@' % k, v)
    add(name, claim, expected, t)
def quantum(t):   # hand out every X25519 secret in phase 1
    return (t.replace('free salt, gw1, credA', EXPS + 'free salt, gw1, credA', 1)
            .replace('  new e: exponent;\n', '  new e: exponent; insert broken(e);\n')
            .replace('new es: exponent;\n', 'new es: exponent; insert broken(es);\n'))
LATER = '\n  | (phase 1; out(c, (%s)))'
enrol('40_enrol', 'invite, r, password and all keys of the gateway leak once the enrolment is over: TOTP secret and k_cred stay\n'
      '   secret; both ends agree on Q, k_cred and secret.  So later sessions are those of 02.',
      [F] + [T]*5, True, '', '', LATER % 'Kinv, r, pw, b')
CMP = 'if Q = honestQ then   (* the person compared the fingerprint *)\n  '
enrol('41_enrol_leaked_compared', 'invite leaked beforehand, fingerprint compared before anything is given out: as 40.',
      [F] + [T]*5, False, CMP, '\n  out(c, Kinv);', '')
enrol('42_enrol_leaked', 'invite leaked beforehand, fingerprint not compared: the thief enrols himself and gets the TOTP secret (known limit).',
      [F, F, T, F, F, T], False, '', '\n  out(c, Kinv);', '')
enrol('43_enrol_quantum', 'a recorder who later breaks every X25519 key, without the invite: TOTP secret and k_cred stay secret.',
      [F] + [T]*5, True, '', '', QUANT % 'r, pw, b')
enrol('44_enrol_quantum_invite', 'the same with the invite: both are lost (known limit: destroy invites).', [F]*4 + [T]*2, True, '', '', QUANT % 'Kinv, b')
for n in ('43_enrol_quantum', '44_enrol_quantum_invite'):
    FILES[n] = quantum(FILES[n])

def run(name):
    t = time.time()
    try:
        o = subprocess.run([os.environ.get('PROVERIF', 'proverif'), name + '.pv'], capture_output=True, text=True, timeout=int(os.environ.get('LIMIT', '420')))
        rs = [l for l in o.stdout.splitlines() if l.startswith('RESULT') and not l.startswith('RESULT (')]
        got = ['true' if l.rstrip('.').endswith('true') else 'false' if l.rstrip('.').endswith('false') else 'open' for l in rs]
        err = '' if rs else (o.stdout + o.stderr).strip()[-300:]
    except subprocess.TimeoutExpired:
        rs, got, err = [], [], 'no result within the limit'
    verdict = 'ok  ' if got == EXPECTED[name] else 'DIFF'
    line = '%s %-28s %6.1f s  expected %s, got %s %s\n' % (verdict, name, time.time() - t, ' '.join(EXPECTED[name]), ' '.join(got), err)
    sys.stdout.write(line); sys.stdout.flush()
    with open('answers.txt', 'a') as f:
        f.write('== %s\n%s\n%s\n' % (name, '\n'.join(rs), err))
    return line

if __name__ == '__main__':
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    for n, t in FILES.items():
        open(n + '.pv', 'w').write(t)
    args = sys.argv[1:]
    if args and args[0] == 'run':
        names = [n for n in FILES if not args[1:] or any(n.startswith(a) for a in args[1:])]
        with ThreadPoolExecutor(2) as ex:
            lines = list(ex.map(run, names))
        open('results.txt' if not args[1:] else 'results-part.txt', 'w').write(''.join(lines))
