//! The authorization request and the answers to it (RFC 6749 §4.1.1, §4.1.2; RFC 9207).

use super::{
    app_scheme::AppScheme,
    client::KnownBy,
    error::{ErrorCode, OAuthError, told},
    form::Form,
    identifiers::{ClientId, Issuer},
    pkce::{self, CodeChallenge},
    redirect_uri::{RedirectUri, Unfit},
    scope::Scope,
};

/// The longest `state` that is carried, in bytes.
const LONGEST_STATE: usize = 4096;
/// How many of a client's redirect URIs a refusal names.
const MOST_NAMED: usize = 3;

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

    /// Trusts the `redirect_uri`, because it is one of the client's.
    pub fn addressed_to(
        &self,
        registered: &[RedirectUri],
        known_by: KnownBy,
    ) -> Result<ReturnAddress, OAuthError> {
        let redirect_uri = match self.0.one("redirect_uri")? {
            Some(presented) => {
                if !registered.iter().any(|uri| uri.matches(presented)) {
                    return Err(redirect_uri_differs(presented, registered, known_by));
                }
                RedirectUri::presented(presented)
            }
            None => match registered {
                [only] => only.clone(),
                _ => {
                    return Err(OAuthError::invalid_request(format!(
                        "redirect_uri is missing, and the client has more than one: {}",
                        named(registered)
                    )));
                }
            },
        };
        Ok(ReturnAddress {
            redirect_uri,
            state: self.state()?.map(str::to_owned),
        })
    }

    /// Checks what can be told before the client is known, so that nobody else is asked about a
    /// request that cannot pass.
    pub fn could_pass(&self, let_in: &[AppScheme]) -> Result<(), OAuthError> {
        if let Some(presented) = self.0.one("redirect_uri")?
            && let Err(unfit) = RedirectUri::judge(presented, let_in)
        {
            let error = OAuthError::invalid_request(format!(
                "redirect_uri is not one that a client may have: of {}, {}",
                told(presented),
                unfit.reason()
            ));
            return Err(match unfit {
                Unfit::UnknownApp(scheme) => of_unknown_app(error, &scheme),
                _ => error,
            });
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
        let code_challenge = self.0.one("code_challenge")?.ok_or_else(pkce::missing)?;
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

/// A refusal of an address that is not one of the client's. It shows both, since neither is a
/// secret, and says who can mend it.
pub fn redirect_uri_differs(
    presented: &str,
    registered: &[RedirectUri],
    known_by: KnownBy,
) -> OAuthError {
    let (known_as, whose, next_step) = match known_by {
        KnownBy::Registration => (
            "the client registered",
            "it registered",
            "This is a mistake of the app, not yours. Update the app, remove the connection there, and \
             add it anew. If it stays so, tell the maker of the app, with the details below.",
        ),
        KnownBy::Document => (
            "the client publishes",
            "its document has",
            "This is a mistake of the app or of its publisher, not yours. Update the app and connect \
             again. If it stays so, tell the maker of the app, with the details below.",
        ),
        KnownBy::Operator => (
            "the client was set up with",
            "the configuration has",
            "The operator of this proxy can add the address to the redirect_uris of this client, if \
             it is right. If not, correct it in the app.",
        ),
    };
    let error = OAuthError::invalid_request(format!(
        "redirect_uri is not one that {known_as}: it asks for {}, but {whose} {}",
        told(presented),
        named(registered)
    ));
    match (RedirectUri::judge(presented, &[]), known_by) {
        (Err(Unfit::UnknownApp(scheme)), KnownBy::Registration | KnownBy::Document) => {
            of_unknown_app(error, &scheme)
        }
        _ => error.in_words(
            "The app wants its answer at another address than the ones that are known for it, so \
             nothing can be approved.",
            next_step,
        ),
    }
}

/// The same for an app whose links nobody let in yet.
fn of_unknown_app(error: OAuthError, scheme: &AppScheme) -> OAuthError {
    error.in_words(
        format!(
            "The app wants its answer in a link that begins with {scheme}:, and this proxy knows no \
             app with such links."
        ),
        format!(
            "If you run this proxy and trust the app, write app_schemes = [\"{scheme}\"] under \
             [clients] in its configuration, restart it, and add the connection anew in the app."
        ),
    )
}

/// The first of a client's redirect URIs, as a refusal names them.
fn named(registered: &[RedirectUri]) -> String {
    let first = registered.iter().take(MOST_NAMED);
    let named: Vec<String> = first.map(|uri| told(uri.as_str())).collect();
    let named = named.join(", ");
    match registered.len().saturating_sub(MOST_NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
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
            Params::new(Form::parse(query.as_bytes()).unwrap())
                .addressed_to(registered, KnownBy::Registration)
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

    /// Case 04: both are shown, shortened and escaped, and whose mistake it is.
    #[test]
    fn a_redirect_uri_that_differs_is_shown_beside_those_that_are_known() {
        let registered = |uris: &[&str]| -> Vec<RedirectUri> {
            let uris = uris.iter().map(|uri| RedirectUri::parse(uri).unwrap());
            uris.collect()
        };
        let one = registered(&["https://localhost:1234/cb"]);
        let differs =
            redirect_uri_differs("https://localhost:5678/cb", &one, KnownBy::Registration);
        assert_eq!(
            differs.description,
            "redirect_uri is not one that the client registered: it asks for \
             https://localhost:5678/cb, but it registered https://localhost:1234/cb"
        );
        assert!(
            differs
                .for_people
                .unwrap()
                .next_step
                .contains("mistake of the app")
        );

        let five = registered(&[
            "https://a/1",
            "https://a/2",
            "https://a/3",
            "https://a/4",
            "https://a/5",
        ]);
        let long = format!("https://a/\"\n{}", "x".repeat(500));
        let differs = redirect_uri_differs(&long, &five, KnownBy::Document).description;
        assert!(
            differs.contains("https://a/%22%0Axxx") && differs.len() < 400,
            "{differs}"
        );
        assert!(
            differs.ends_with("https://a/1, https://a/2, https://a/3 and 2 more"),
            "{differs}"
        );

        let operator = redirect_uri_differs("https://b/cb", &one, KnownBy::Operator);
        assert!(
            operator
                .for_people
                .unwrap()
                .next_step
                .contains("redirect_uris")
        );
        let app = redirect_uri_differs("myapp://cb", &one, KnownBy::Document);
        assert!(
            app.for_people
                .unwrap()
                .next_step
                .contains("app_schemes = [\"myapp\"]")
        );
    }

    /// Case 36
    #[test]
    fn a_client_without_pkce_is_told_what_it_has_to_do() {
        let without = |query: &str| {
            let form = Form::parse(query.as_bytes()).unwrap();
            Params::new(form).check().unwrap_err()
        };
        let challenge = format!("response_type=code&code_challenge={CHALLENGE}");
        for query in [
            "response_type=code",
            &challenge,
            &format!("{challenge}&code_challenge_method=plain"),
        ] {
            let error = without(query);
            assert_eq!(error.code, ErrorCode::InvalidRequest);
            let words = "the client has to use PKCE with the method S256";
            assert!(error.description.contains(words), "{}", error.description);
        }
        assert!(without("response_type=code").for_people.is_some());
    }
}
