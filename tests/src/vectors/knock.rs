//! `knock.json`: §4, §5. Each knock is built and every intermediate compared, then opened again.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde_json::Value;
use spa_proto::intermediates::{self, Named};
use spa_proto::{
    Ask, CredentialId, CredentialKey, DerivedKeys, DeviceSecret, Ext, GatewayId, Info, KnockSecret,
    Op, OpenedKnock, ProofSecret, Request, SealedKnock, SecondFactor, SessionKey, Signer, WallTime,
    Wanted, build_knock,
};

use super::case::{Case, Checked, Failure, Report, equal, hex, holds, refused};

pub fn check(vectors: &Value, report: &mut Report) {
    let mut proofs = Proofs::default();
    report.each("knock", vectors, |case| check_case(case, &mut proofs));
}

/// Argon2id takes a tenth of a second; many vectors share a password.
#[derive(Default)]
struct Proofs(HashMap<String, Vec<Named>>);

impl Proofs {
    fn seed(&mut self, case: &Case<'_>, parties: (GatewayId, CredentialId)) -> Checked<[u8; 32]> {
        let (password, salt) = (case.text("password")?, case.array("salt")?);
        let device = DeviceSecret::from_bytes(case.array("r")?);
        let (gateway, credential) = parties;
        let key = [
            password,
            &hex(&salt),
            &hex(device.expose()),
            &hex(gateway.as_bytes()),
            &hex(credential.as_bytes()),
        ]
        .join("/");
        if !self.0.contains_key(&key) {
            let made = intermediates::proof_key(password, &salt, &device, gateway, credential);
            self.0
                .insert(key.clone(), made.map_err(refused("the password"))?);
        }
        let seed = self
            .0
            .get(&key)
            .and_then(|all| all.iter().find(|(name, _)| *name == "seed"));
        let (_, seed) = seed.ok_or_else(|| Failure::new("no seed"))?;
        case.same("seed", seed)?;
        seed.as_slice()
            .try_into()
            .map_err(|_| Failure::new("the seed is not 32 bytes"))
    }
}

fn check_case(case: &Case<'_>, proofs: &mut Proofs) -> Checked {
    let gateway = GatewayId::from_bytes(case.array("gw_id")?);
    let credential = CredentialId::from_bytes(case.array("cred_id")?);
    let keys = DerivedKeys::derive(
        &CredentialKey::from_bytes(case.array("K_cred")?),
        gateway,
        credential,
    );
    let kid = case.int("kid")?;
    let b_kid = KnockSecret::from_bytes(case.array("b_kid")?);
    case.same("B_kid", b_kid.public().as_bytes())?;
    if kid == 0 {
        equal("gw_id", &gateway, &GatewayId::of(&b_kid.public()))?;
    }
    let q = ProofSecret::from_seed(&proofs.seed(case, (gateway, credential))?);
    case.same("Q", q.public().as_bytes())?;
    let session = if case.has("k_sess") {
        Some(SessionKey::from_bytes(case.array("k_sess")?))
    } else {
        None
    };

    // Build.
    let (info, ext) = (
        Info::from_bytes(case.array("info")?),
        Ext::from_bytes(case.array("ext")?),
    );
    let request = Request::parse(&info, &ext).map_err(refused("the request"))?;
    check_fields(case, &request, &info)?;
    let slot = WallTime::from_millis(case.u64("now")?).slot();
    case.same_int("slot", slot.as_minutes())?;
    case.same("T", keys.tag(slot).as_bytes())?;
    let signer = match (request.op(), &session) {
        (Op::Open | Op::Enrol, None) => Signer::Password(&q),
        (Op::Roam | Op::Close, Some(key)) => Signer::Session(key),
        (Op::Open | Op::Enrol, Some(_)) | (Op::Roam | Op::Close, None) => {
            return Err(Failure::new("the vector's k_sess does not suit its op"));
        }
    };
    let e: [u8; 32] = case.array("e")?;
    let public = b_kid.public();
    let values = intermediates::knock(&keys, kid, &public, slot, &e, &info, &ext, signer);
    case.all_same(&values.map_err(refused("B_kid"))?)?;
    let built = build_knock(&keys, kid, &public, slot, e, &info, &ext, signer);
    let (packet, _) = built.map_err(refused("the knock"))?;
    case.same("packet", &packet)?;

    // Open.
    let sealed = SealedKnock::parse(&case.bytes("packet")?).map_err(refused("the packet"))?;
    case.same("T", sealed.tag().as_bytes())?;
    case.same("V", &sealed.v())?;
    let verified = sealed.unmask(&keys, slot).map_err(refused("V"))?;
    let opened = verified
        .open(&keys, |found| (found == kid).then_some(&b_kid))
        .map_err(refused("the AEAD"))?;
    case.same("info", opened.info().as_bytes())?;
    case.same("ext", opened.ext().as_bytes())?;
    case.same("proof", opened.proof())?;
    case.same("th1", opened.th1())?;
    case.all_same(&intermediates::of_reply_keys(&opened.reply_keys()))?;
    let reopened = opened.request().map_err(refused("the opened request"))?;
    equal("the opened request", &request, &reopened)?;
    check_proof(&opened, &q, session.as_ref())
}

fn check_proof(opened: &OpenedKnock, q: &ProofSecret, session: Option<&SessionKey>) -> Checked {
    match session {
        None => holds("the proof", opened.verify_proof(&q.public()).into()),
        Some(key) => holds(
            "the session's proof",
            opened.verify_session_proof(key).into(),
        ),
    }
}

/// The parsed request against `fields`, and the request written again against `info`.
fn check_fields(case: &Case<'_>, request: &Request, info: &Info) -> Checked {
    let (again, ext) = request.encode().map_err(refused("the request"))?;
    equal(
        "the request written again",
        request,
        &Request::parse(&again, &ext).map_err(refused("it"))?,
    )?;
    holds("info written again", again == *info)?;

    let fields = case.object("fields")?;
    let op: u64 = match request.op() {
        Op::Open => 0,
        Op::Roam => 1,
        Op::Close => 2,
        Op::Enrol => 3,
    };
    fields.same_int("op", op)?;
    fields.same_int("flags", u8::from(request.same_port))?;
    fields.same_int("ts", request.ts.as_millis())?;
    let (minutes, code) = match &request.ask {
        Ask::Open(open) => match open.factor {
            SecondFactor::Totp(code) => (open.minutes, code),
            SecondFactor::None | SecondFactor::Recovery(_) => (open.minutes, u32::MAX),
        },
        Ask::Roam(_) | Ask::Close(_) | Ask::Enrol(_) => (0, u32::MAX),
    };
    fields.same_int("minutes", minutes)?;
    fields.same_int("code", code)?;
    let tlv = fields.object("tlv")?;
    let expected: Result<BTreeMap<_, _>, Failure> = tlv
        .names()
        .map(|name| Ok((name.to_owned(), hex(&tlv.bytes(name)?))))
        .collect();
    equal("tlv", &expected?, &tlvs(request))
}

/// The known TLVs of a request as the vectors write them.
fn tlvs(request: &Request) -> BTreeMap<String, String> {
    let mut tlvs = BTreeMap::new();
    let mut put = |kind: &str, value: &[u8]| tlvs.insert(kind.to_owned(), hex(value));
    if let Some(source) = request.source {
        let source = match source {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        put("06", &source.octets());
    }
    match &request.ask {
        Ask::Open(open) => {
            match &open.wanted {
                Wanted::Resources(ids) => {
                    put(
                        "01",
                        &ids.iter().flat_map(|id| id.to_bytes()).collect::<Vec<_>>(),
                    );
                }
                Wanted::All => {
                    put("02", &[]);
                }
                Wanted::ControlOnly => {}
            }
            put("03", &open.wg_key);
            if let Some(posture) = &open.posture {
                put("04", posture);
            }
            if let SecondFactor::Recovery(code) = &open.factor {
                put("07", code.expose());
            }
        }
        Ask::Roam(session) | Ask::Close(session) => {
            put("08", session.as_bytes());
        }
        Ask::Enrol(enrol) => {
            put(
                "05",
                &[enrol.q.as_bytes().as_slice(), enrol.label.as_bytes()].concat(),
            );
            if let Some(posture) = &enrol.posture {
                put("04", posture);
            }
        }
    }
    tlvs
}
