//! The authorization request and the answers to it (RFC 6749 §4.1.1, §4.1.2; RFC 9207).

use super::{
    error::{ErrorCode, OAuthError},
    form::Form,
    identifiers::{ClientId, Issuer},
    pkce::CodeChallenge,
    redirect_uri::RedirectUri,
    scope::Scope,
};

/// The longest `state` that is carried, in bytes.
const LONGEST_STATE: usize = 4096;

/// The parameters of an authorization request as they came: nothing is verified.
pub struct Params(Form);

/// Where an answer may be sent. Only [`Params::addressed_to`] makes one, so an error found
/// earlier has no redirect to travel by: it can only become a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnAddress {
    pub redirect_uri: RedirectUri,
    pub state: Option<String>,
}

/// A refusal that the client is told about, at its own `redirect_uri`.
#[derive(Debug)]
pub struct Refusal {
    pub to: ReturnAddress,
    pub error: OAuthError,
}

/// A request that may be shown to a person.
#[derive(Debug)]
pub struct AuthorizationRequest {
    pub code_challenge: CodeChallenge,
    pub scope: Scope,
    /// The `resource` parameter, if there was one.
    pub resource: Option<String>,
}

impl Params {
    pub fn new(form: Form) -> Self {
        Self(form)
    }

    /// The client that the request claims to come from.
    pub fn client_id(&self) -> Result<ClientId, OAuthError> {
        self.0
            .required("client_id", "client_id is missing")
            .map(ClientId::presented)
    }

    /// Trusts the `redirect_uri`, because the client registered it.
    pub fn addressed_to(&self, registered: &[RedirectUri]) -> Result<ReturnAddress, OAuthError> {
        let redirect_uri = match self.0.one("redirect_uri")? {
            Some(presented) => {
                if !registered.iter().any(|uri| uri.matches(presented)) {
                    return Err(OAuthError::invalid_request(
                        "redirect_uri is not one that the client registered",
                    ));
                }
                RedirectUri::presented(presented)
            }
            None => match registered {
                [only] => only.clone(),
                _ => return Err(OAuthError::invalid_request("redirect_uri is missing")),
            },
        };
        Ok(ReturnAddress {
            redirect_uri,
            state: self.state()?.map(str::to_owned),
        })
    }

    /// Checks what can be told before the client is known, so that nobody else is asked about a
    /// request that cannot pass.
    pub fn could_pass(&self) -> Result<(), OAuthError> {
        if let Some(presented) = self.0.one("redirect_uri")?
            && RedirectUri::parse(presented).is_none()
        {
            return Err(OAuthError::invalid_request(
                "redirect_uri is not one that a client may have",
            ));
        }
        self.state()?;
        self.check()?;
        Ok(())
    }

    fn state(&self) -> Result<Option<&str>, OAuthError> {
        let state = self.0.one("state")?;
        if state.is_some_and(|state| state.len() > LONGEST_STATE) {
            return Err(OAuthError::invalid_request(
                "state is longer than 4096 bytes",
            ));
        }
        Ok(state)
    }

    /// Checks everything else that the request alone can tell.
    pub fn check(&self) -> Result<AuthorizationRequest, OAuthError> {
        if self.0.repeated("resource").is_some() {
            return Err(OAuthError::invalid_request(
                "a parameter is given more than once",
            ));
        }
        if self.0.one("request")?.is_some() {
            return Err(OAuthError::new(
                ErrorCode::RequestNotSupported,
                "request objects are not supported",
            ));
        }
        if self.0.one("request_uri")?.is_some() {
            return Err(OAuthError::new(
                ErrorCode::RequestUriNotSupported,
                "request objects are not supported",
            ));
        }
        match self
            .0
            .required("response_type", "response_type is missing")?
        {
            "code" => {}
            _ => {
                return Err(OAuthError::unsupported_response_type(
                    "response_type must be code",
                ));
            }
        }
        if self
            .0
            .one("response_mode")?
            .is_some_and(|mode| mode != "query")
        {
            return Err(OAuthError::invalid_request("response_mode must be query"));
        }
        let code_challenge = self
            .0
            .required("code_challenge", "code_challenge is missing")?;
        let mut resources = self.0.all("resource");
        let resource = resources.next();
        if resources.any(|other| Some(other) != resource) {
            return Err(OAuthError::invalid_target("resource must be given once"));
        }
        Ok(AuthorizationRequest {
            code_challenge: CodeChallenge::parse(
                code_challenge,
                self.0.one("code_challenge_method")?,
            )?,
            scope: Scope::granted(self.0.one("scope")?)?,
            resource: resource.map(str::to_owned),
        })
    }
}

impl ReturnAddress {
    /// The URL that takes `code` back to the client (RFC 6749 §4.1.2, RFC 9207 §2).
    pub fn with_code(&self, code: &str, issuer: &Issuer) -> String {
        self.with(&[("code", code)], issuer)
    }

    /// The URL that tells the client why there is no code (RFC 6749 §4.1.2.1).
    pub fn with_error(&self, error: &OAuthError, issuer: &Issuer) -> String {
        let code = error.code.to_string();
        self.with(
            &[("error", &code), ("error_description", &error.description)],
            issuer,
        )
    }

    fn with(&self, answer: &[(&str, &str)], issuer: &Issuer) -> String {
        let mut parameters = answer.to_vec();
        parameters.extend(self.state.as_deref().map(|state| ("state", state)));
        parameters.push(("iss", issuer.as_str()));
        self.redirect_uri.with_parameters(&parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    const GOOD: &str = "response_type=code&code_challenge_method=S256";

    fn check(query: &str) -> Result<AuthorizationRequest, ErrorCode> {
        let query = format!("{query}&code_challenge={CHALLENGE}");
        Params::new(Form::parse(query.as_bytes()).unwrap())
            .check()
            .map_err(|error| error.code)
    }

    #[test]
    fn az_13_a_repeated_parameter_is_an_invalid_request() {
        assert!(check(GOOD).is_ok());
        assert!(check(&format!("{GOOD}&prompt=consent&access_type=offline&utm=1")).is_ok());
        for again in [
            "response_type=code",
            "code_challenge_method=S256",
            "utm=1&utm=1",
        ] {
            assert_eq!(
                check(&format!("{GOOD}&{again}")).unwrap_err(),
                ErrorCode::InvalidRequest
            );
        }
    }

    #[test]
    fn az_04_other_ways_to_answer_are_refused_by_name() {
        let method = "code_challenge_method=S256";
        for (query, code) in [
            (String::new(), ErrorCode::InvalidRequest),
            (
                format!("{method}&response_type=token"),
                ErrorCode::UnsupportedResponseType,
            ),
            (
                format!("{method}&response_type=code+id_token"),
                ErrorCode::UnsupportedResponseType,
            ),
            (
                format!("{method}&response_type=CODE"),
                ErrorCode::UnsupportedResponseType,
            ),
            (
                format!("{GOOD}&response_mode=fragment"),
                ErrorCode::InvalidRequest,
            ),
            (format!("{GOOD}&request=x"), ErrorCode::RequestNotSupported),
            (
                format!("{GOOD}&request_uri=https://x.example"),
                ErrorCode::RequestUriNotSupported,
            ),
            (
                format!("{GOOD}&resource=a&resource=b"),
                ErrorCode::InvalidTarget,
            ),
            (format!("{GOOD}&scope=%22"), ErrorCode::InvalidScope),
        ] {
            assert_eq!(check(&query).unwrap_err(), code, "{query}");
        }
    }

    #[test]
    fn az_07_the_answer_carries_state_unchanged_and_iss_once() {
        let issuer = Issuer::parse("https://gw.example").unwrap();
        let state = "a+b c&é%\r\n#".repeat(100);
        let to = ReturnAddress {
            redirect_uri: RedirectUri::presented("https://c.example/cb?a=1"),
            state: Some(state.clone()),
        };
        let url = url::Url::parse(&to.with_code("the-code", &issuer)).unwrap();
        let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let expected = [
            ("a", "1"),
            ("code", "the-code"),
            ("state", &state),
            ("iss", "https://gw.example"),
        ];
        assert_eq!(query.len(), 4);
        for (pair, expected) in query.iter().zip(expected) {
            assert_eq!((pair.0.as_str(), pair.1.as_str()), expected);
        }
        let without = ReturnAddress { state: None, ..to };
        assert!(!without.with_code("x", &issuer).contains("state"));
    }

    #[test]
    fn an_address_is_only_given_for_a_registered_redirect_uri() {
        let one = [RedirectUri::parse("https://c.example/cb").unwrap()];
        let two = [
            one[0].clone(),
            RedirectUri::parse("http://localhost/cb").unwrap(),
        ];
        let addressed = |query: &str, registered: &[RedirectUri]| {
            Params::new(Form::parse(query.as_bytes()).unwrap()).addressed_to(registered)
        };
        assert!(addressed("redirect_uri=https://c.example/cb", &two).is_ok());
        assert!(addressed("redirect_uri=http://localhost:4/cb", &two).is_ok());
        assert!(addressed("redirect_uri=https://c.example/cb/", &two).is_err());
        assert!(
            addressed(
                "redirect_uri=https://c.example/cb&redirect_uri=https://e.example",
                &two
            )
            .is_err()
        );
        assert!(addressed("", &one).is_ok());
        assert!(addressed("", &two).is_err());
        let long = format!(
            "redirect_uri=https://c.example/cb&state={}",
            "x".repeat(4097)
        );
        assert!(addressed(&long[..long.len() - 1], &two).is_ok());
        assert!(addressed(&long, &two).is_err());
    }
}
