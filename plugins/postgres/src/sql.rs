//! A statement with the types of its parameters, so that it can be sent with or without being prepared.

use tokio_postgres::types::Type;

#[derive(Clone, Debug)]
pub(crate) struct Sql {
    pub(crate) text: String,
    pub(crate) types: Vec<Type>,
}

impl Sql {
    pub(crate) fn new(text: String, types: &[Type]) -> Sql {
        Sql { text, types: types.to_vec() }
    }
}
