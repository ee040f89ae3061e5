//! Writes a request: the client's side of SPEC §4.

use alloc::vec::Vec;

use super::{
    ALL, Ask, ENROL, EncodeError, EnrolAsk, Ext, FORMAT, Info, MAX_LABEL, MAX_POSTURE,
    MAX_RESOURCES, NO_CODE, POSTURE, RECOVERY, RESOURCES, Request, SAME_PORT, SESSION, SOURCE,
    SecondFactor, WG_KEY, Wanted, wire_address,
};
use crate::ids::ResourceId;
use crate::primitives::join;
use crate::tlv::Writer;

impl Request {
    /// Writes the request as `info` and `ext`: once per transaction, for all of its packets.
    ///
    /// # Errors
    /// If a field does not fit the wire.
    pub fn encode(&self) -> Result<(Info, Ext), EncodeError> {
        let (op, minutes, code) = match &self.ask {
            Ask::Open(open) => (0, open.minutes, open.factor.code()?),
            Ask::Roam(_) => (1, 0, NO_CODE),
            Ask::Close(_) => (2, 0, NO_CODE),
            Ask::Enrol(_) => (3, 0, NO_CODE),
        };
        let info = join(&[
            &[FORMAT << 4 | op, if self.same_port { SAME_PORT } else { 0 }],
            &minutes.to_be_bytes(),
            &self.ts.as_millis().to_be_bytes(),
            &code.to_be_bytes(),
        ]);
        Ok((Info(info), Ext(self.encode_ext()?)))
    }

    fn encode_ext(&self) -> Result<[u8; Ext::LEN], EncodeError> {
        let mut area = Area(Writer::new());
        match &self.ask {
            Ask::Open(open) => {
                match &open.wanted {
                    Wanted::Resources(ids) => area.resources(ids)?,
                    Wanted::All => area.push(ALL, &[]),
                    Wanted::ControlOnly => {}
                }
                area.push(WG_KEY, &open.wg_key);
                area.posture(open.posture.as_deref())?;
                if let SecondFactor::Recovery(code) = &open.factor {
                    area.push(RECOVERY, code.expose());
                }
            }
            Ask::Roam(session) | Ask::Close(session) => area.push(SESSION, session.as_bytes()),
            Ask::Enrol(enrol) => {
                area.enrol(enrol)?;
                area.posture(enrol.posture.as_deref())?;
            }
        }
        if let Some(source) = self.source {
            area.push(SOURCE, &wire_address(source));
        }
        Ok(area.0.finish())
    }
}

impl SecondFactor {
    const fn code(&self) -> Result<u32, EncodeError> {
        match self {
            Self::Totp(NO_CODE) => Err(EncodeError::Code),
            Self::Totp(code) => Ok(*code),
            Self::None | Self::Recovery(_) => Ok(NO_CODE),
        }
    }
}

struct Area(Writer<{ Ext::LEN }>);

impl Area {
    /// Pushes what always fits: 66 + 34 + 226 + 18 + 18 = 362 bytes are the most an op takes.
    fn push(&mut self, kind: u8, value: &[u8]) {
        self.0
            .push(kind, value)
            .expect("the longest request fits the 367 bytes of ext");
    }

    fn resources(&mut self, ids: &[ResourceId]) -> Result<(), EncodeError> {
        if ids.is_empty() || ids.len() > MAX_RESOURCES {
            return Err(EncodeError::Resources);
        }
        let joined: Vec<u8> = ids.iter().flat_map(|id| id.to_bytes()).collect();
        self.push(RESOURCES, &joined);
        Ok(())
    }

    fn posture(&mut self, posture: Option<&[u8]>) -> Result<(), EncodeError> {
        let Some(posture) = posture else {
            return Ok(());
        };
        if posture.len() > MAX_POSTURE {
            return Err(EncodeError::Posture);
        }
        self.push(POSTURE, posture);
        Ok(())
    }

    fn enrol(&mut self, enrol: &EnrolAsk) -> Result<(), EncodeError> {
        if enrol.label.is_empty() || enrol.label.len() > MAX_LABEL {
            return Err(EncodeError::Label);
        }
        let mut value = enrol.q.as_bytes().to_vec();
        value.extend_from_slice(enrol.label.as_bytes());
        self.push(ENROL, &value);
        Ok(())
    }
}
