//! Requests of the test's own.

use super::DEADLINE;

/// An answer, read whole.
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE)).build().into()
}

pub fn read(response: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let (head, mut body) = response.into_parts();
    Ok(Answer { status: head.status.as_u16(), body: body.read_to_vec()? })
}
