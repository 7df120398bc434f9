//! From the methods of a state to an entity.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, FnArg, ImplItem, ImplItemFn, ItemImpl, LitStr, Path, ReturnType, Type, Visibility,
};

use crate::expand::Arguments;

/// A method that becomes an operation.
struct Operation {
    ident: Ident,
    docs: Vec<Attribute>,
    name: String,
    kind: OperationKind,
    wants_context: bool,
    inputs: Vec<Type>,
    /// What it returns, as written.
    output: TokenStream,
    /// Whether that is a `Result`.
    fallible: bool,
}

#[derive(PartialEq, Eq)]
enum OperationKind {
    Query,
    Operation,
    Async,
}

/// The items that stand beside the `impl`.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let mut given = Arguments::default();
    let mut blocking = false;
    syn::meta::parser(|meta| match meta.path.is_ident("blocking") {
        true if blocking => Err(meta.error("given twice")),
        true => {
            blocking = true;
            Ok(())
        }
        false => given.read(&meta),
    })
    .parse2(arguments)?;
    if let Some(version) = &given.version {
        return Err(Error::new(version.span(), "entities have no version"));
    }
    let methods: ItemImpl = syn::parse2(item).map_err(|error| {
        Error::new(
            error.span(),
            format!("`#[entity]` stands before the `impl` of the entity's state: {error}"),
        )
    })?;
    let state = check_impl(&methods)?;
    let operations: syn::Result<Vec<_>> = methods
        .items
        .iter()
        .filter_map(|item| match item {
            ImplItem::Fn(method) => operation(method).transpose(),
            _ => None,
        })
        .collect();
    let operations = operations?;
    if operations.is_empty() {
        let problem = "an entity has at least one operation: a method that takes `&self` or `&mut self`";
        return Err(Error::new(methods.self_ty.span(), problem));
    }
    Ok(generate(&given, blocking, &methods, &state, &operations))
}

fn check_impl(methods: &ItemImpl) -> syn::Result<Ident> {
    if let Some((_, path, _)) = &methods.trait_ {
        return Err(Error::new(
            path.span(),
            "the operations of an entity are methods of its own, not of a trait",
        ));
    }
    if !methods.generics.params.is_empty() {
        let problem = "an entity cannot be generic: it is found by name, and a name has one type";
        return Err(Error::new(methods.generics.params.span(), problem));
    }
    match &*methods.self_ty {
        Type::Path(path) if path.qself.is_none() => match path.path.get_ident() {
            Some(ident) => Ok(ident.clone()),
            None => Err(Error::new(path.span(), "name the state's type without a path")),
        },
        other => {
            Err(Error::new(other.span(), "the state of an entity is a struct or an enum of this module"))
        }
    }
}

/// What becomes of a method; nothing if it takes no `self`.
fn operation(method: &ImplItemFn) -> syn::Result<Option<Operation>> {
    let signature = &method.sig;
    let Some(FnArg::Receiver(receiver)) = signature.inputs.first() else { return Ok(None) };
    if receiver.reference.is_none() {
        let problem = "an operation takes `&self` or `&mut self`: the state stays with the entity";
        return Err(Error::new(receiver.span(), problem));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(
            signature.generics.params.span(),
            "an operation cannot be generic: it is found by name",
        ));
    }
    let mut wants_context = false;
    let mut inputs = Vec::new();
    for argument in signature.inputs.iter().skip(1) {
        let FnArg::Typed(typed) = argument else { continue };
        match &*typed.ty {
            Type::Reference(reference)
                if is_context(&reference.elem) && inputs.is_empty() && !wants_context =>
            {
                wants_context = true;
            }
            Type::Reference(reference) => {
                let problem = "an operation owns its inputs, they come from storage: take an owned type; and the \
                               context, `&EntityContext`, comes before them";
                return Err(Error::new(reference.and_token.span, problem));
            }
            Type::ImplTrait(opaque) => {
                return Err(Error::new(opaque.span(), "an operation needs inputs of named types"));
            }
            ty => inputs.push(ty.clone()),
        }
    }
    let kind = match (signature.asyncness, receiver.mutability) {
        (Some(_), _) => OperationKind::Async,
        (None, Some(_)) => OperationKind::Operation,
        (None, None) => OperationKind::Query,
    };
    let (output, fallible) = match &signature.output {
        ReturnType::Default => (quote!(()), false),
        ReturnType::Type(_, ty) => (quote!(#ty), is_result(ty)),
    };
    Ok(Some(Operation {
        ident: signature.ident.clone(),
        docs: method.attrs.iter().filter(|attribute| attribute.path().is_ident("doc")).cloned().collect(),
        name: signature.ident.unraw().to_string(),
        kind,
        wants_context,
        inputs,
        output,
        fallible,
    }))
}

fn last_segment(ty: &Type) -> Option<&Ident> {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|segment| &segment.ident),
        _ => None,
    }
}

fn is_context(ty: &Type) -> bool {
    last_segment(ty).is_some_and(|ident| ident == "EntityContext")
}

fn is_result(ty: &Type) -> bool {
    last_segment(ty).is_some_and(|ident| ident == "Result")
}

fn generate(
    given: &Arguments,
    blocking: bool,
    methods: &ItemImpl,
    state: &Ident,
    operations: &[Operation],
) -> TokenStream {
    let here = Span::call_site().located_at(state.span());
    let facade: Path = given.facade.clone().unwrap_or_else(|| syn::parse_quote_spanned!(here=> ::steadfast));
    let private = quote_spanned!(here=> #facade::__private);
    let name = given
        .name
        .clone()
        .unwrap_or_else(|| LitStr::new(&state.unraw().to_string().to_lowercase(), state.span()));
    let reference = format_ident!("{}Entity", state.unraw(), span = here);
    let blocking = blocking.then(|| quote!(.blocking()));
    let registered = operations.iter().map(|operation| registration(operation, state, &private));
    let asked = operations.iter().map(|operation| question(operation, &private));
    let reference_docs = format!(" One entity `{}` by its key: what can be asked of it.", name.value());
    let at_docs = format!(" The entity `{}` with that key.", name.value());
    // The reference is as visible as the operations are.
    let public = methods
        .items
        .iter()
        .any(|item| matches!(item, ImplItem::Fn(method) if matches!(method.vis, Visibility::Public(_))));
    let visibility = if public { quote!(pub) } else { quote!(pub(crate)) };

    quote! {
        #methods

        #[doc = #reference_docs]
        #[derive(::core::clone::Clone, ::core::fmt::Debug)]
        #visibility struct #reference {
            id: ::core::result::Result<#private::EntityId, #private::InvalidInstanceId>,
        }

        #[allow(dead_code)]
        impl #state {
            #[doc = #at_docs]
            #visibility fn at(key: impl ::core::convert::AsRef<str>) -> #reference {
                #reference { id: #private::EntityId::new(#name, key) }
            }

            /// The entity, to be registered with a hub.
            #visibility fn entity() -> #private::EntityDefinition<#state> {
                #private::entity::<#state>(#name)
                    #(#registered)*
                    #blocking
            }
        }

        impl #private::IntoEntityId for #reference {
            fn entity_id(&self) -> ::core::result::Result<#private::EntityId, #private::InvalidInstanceId> {
                ::core::clone::Clone::clone(&self.id)
            }
        }

        #[allow(dead_code)]
        impl #reference {
            /// The entity's id.
            ///
            /// # Errors
            /// When the key cannot be used.
            #visibility fn id(&self) -> ::core::result::Result<#private::EntityId, #private::InvalidInstanceId> {
                ::core::clone::Clone::clone(&self.id)
            }

            #(#asked)*
        }
    }
}

fn arguments(operation: &Operation) -> (Vec<Ident>, TokenStream, TokenStream) {
    let names: Vec<_> = (0..operation.inputs.len()).map(|index| format_ident!("input{index}")).collect();
    let types = &operation.inputs;
    let input = match &**types {
        [] => quote!(()),
        [one] => quote!(#one),
        several => quote!((#(#several,)*)),
    };
    let pattern = match &*names {
        [one] => quote!(#one),
        several => quote!((#(#several,)*)),
    };
    (names, input, pattern)
}

/// How an operation is put into the definition.
fn registration(operation: &Operation, state: &Ident, private: &TokenStream) -> TokenStream {
    let Operation { ident, name, wants_context, fallible, .. } = operation;
    let (names, input, pattern) = arguments(operation);
    let context = wants_context.then(|| quote!(context,));
    let waits = (operation.kind == OperationKind::Async).then(|| quote!(.await));
    let called = quote!(#state::#ident(state, #context #(#names),*) #waits);
    let outcome = match fallible {
        true => called,
        false => quote!(::core::result::Result::<_, #private::Error>::Ok(#called)),
    };
    let context_type = quote!(&#private::EntityContext);
    match operation.kind {
        OperationKind::Query => quote! {
            .query(#name, |state: &#state, context: #context_type, #pattern: #input| { let _ = context; #outcome })
        },
        OperationKind::Operation => quote! {
            .operation(#name, |state: &mut #state, context: #context_type, #pattern: #input| { let _ = context; #outcome })
        },
        OperationKind::Async => quote! {
            .operation_async(#name, |state, context, #pattern: #input| {
                ::std::boxed::Box::pin(async move { let _ = context; #outcome })
            })
        },
    }
}

/// How an operation is asked for.
fn question(operation: &Operation, private: &TokenStream) -> TokenStream {
    let Operation { ident, docs, name, fallible, output, inputs, .. } = operation;
    let (names, _, pattern) = arguments(operation);
    let output = match fallible {
        true => quote!(<#output as #private::Outcome>::Ok),
        false => quote!(#output),
    };
    quote! {
        #(#docs)*
        pub fn #ident(&self, #(#names: #inputs),*) -> #private::EntityCall<#output> {
            #private::EntityCall::new(self, #name, #pattern)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_become_an_entity_is_refused_with_a_reason() {
        let cases = [
            (
                quote!(
                    struct A;
                ),
                "before the `impl`",
            ),
            (quote!(impl Clone for A { fn add(&mut self) {} }), "not of a trait"),
            (
                quote!(
                    impl<T> A<T> {
                        fn add(&mut self) {}
                    }
                ),
                "cannot be generic",
            ),
            (quote!(impl a::A { fn add(&mut self) {} }), "without a path"),
            (quote!(impl A { fn new() -> A { A } }), "at least one operation"),
            (quote!(impl A { fn add(self) {} }), "`&mut self`"),
            (quote!(impl A { fn add<T>(&mut self, t: T) {} }), "cannot be generic"),
            (quote!(impl A { fn add(&mut self, text: &str) {} }), "owned type"),
            (quote!(impl A { fn add(&mut self, n: i64, ctx: &EntityContext) {} }), "comes before"),
            (quote!(impl A { fn add(&mut self, n: impl Into<i64>) {} }), "named types"),
        ];
        for (item, reason) in cases {
            let shown = item.to_string();
            let refusal = expand(quote!(), item).unwrap_err().to_string();
            assert!(refusal.contains(reason), "{shown}: {refusal}");
        }
        let versioned = expand(quote!(version = "1"), quote!(impl A { fn add(&mut self) {} }));
        assert!(versioned.unwrap_err().to_string().contains("no version"));
    }
}
