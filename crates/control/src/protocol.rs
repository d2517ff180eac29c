//! One client's conversation: greeting, negotiation, requests and their answers.

use serde_json::{Value, json};

use crate::command::{self, Arguments, Context};
use crate::error::{ErrorClass, QmpError};
use crate::json;

/// One client's side of the protocol, whatever carries it.
pub(crate) struct Protocol {
    context: Context,
    negotiated: bool,
}

/// A command that a client wants carried out.
struct Request {
    command: String,
    arguments: Arguments,
}

/// The first thing that a client hears.
pub(crate) fn greeting() -> Value {
    json!({"QMP": {"version": command::version(), "capabilities": []}})
}

/// How errors are answered that belong to no request.
pub(crate) fn error(error: &QmpError) -> Value {
    json!({"error": error.json()})
}

impl Protocol {
    pub(crate) fn new(context: Context) -> Self {
        Self { context, negotiated: false }
    }

    /// True once the client has said that it is ready; events are for such clients only.
    pub(crate) fn is_negotiated(&self) -> bool {
        self.negotiated
    }

    /// Carries out what `text` asks for and gives the answer.
    pub(crate) fn answer(&mut self, text: &[u8]) -> Value {
        let mut value = match json::parse(text) {
            Ok(value) => value,
            Err(e) => return error(&QmpError::generic(format!("JSON parse error, {e}"))),
        };
        let id = value.as_object_mut().and_then(|request| request.remove("id"));
        let mut answer = match request(value).and_then(|request| self.carry_out(&request)) {
            Ok(result) => json!({"return": result}),
            Err(e) => {
                tracing::debug!(client = self.context.client, error = e.desc, "refused");
                error(&e)
            }
        };
        if let Some(id) = id {
            answer["id"] = id;
        }
        answer
    }

    fn carry_out(&mut self, request: &Request) -> Result<Value, QmpError> {
        if self.negotiated {
            return command::find(&request.command)?.execute(&self.context, &request.arguments);
        }
        if request.command != "qmp_capabilities" {
            let text = "Expecting capabilities negotiation with 'qmp_capabilities'";
            return Err(QmpError::new(ErrorClass::CommandNotFound, text));
        }
        let kind = &command::find(&request.command)?.kind;
        kind.arguments.check(&request.arguments)?;
        self.negotiated = true;
        Ok(json!({}))
    }
}

/// The request that `value`, whose `id` has been taken, is.
fn request(value: Value) -> Result<Request, QmpError> {
    let Value::Object(members) = value else {
        return Err(QmpError::generic("QMP input must be a JSON object"));
    };
    let mut command = None;
    let mut arguments = Arguments::new();
    for (name, value) in members {
        match (name.as_str(), value) {
            ("execute", Value::String(name)) => command = Some(name),
            ("execute", _) => return Err(QmpError::generic("QMP input member 'execute' must be a string")),
            ("arguments", Value::Object(members)) => arguments = members,
            ("arguments", _) => {
                return Err(QmpError::generic("QMP input member 'arguments' must be an object"));
            }
            _ => return Err(QmpError::generic(format!("QMP input member '{name}' is unexpected"))),
        }
    }
    let command = command.ok_or_else(|| QmpError::generic("QMP input lacks member 'execute'"))?;
    Ok(Request { command, arguments })
}
