//! From a function to a handle: parsing, checks and the generated items.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{Attribute, Error, FnArg, ItemFn, LitStr, Path, ReturnType, Signature, Type};

/// What the function becomes.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Activity,
    Orchestration,
}

impl Kind {
    /// With its article, for messages.
    fn described(self) -> &'static str {
        match self {
            Self::Activity => "an activity",
            Self::Orchestration => "an orchestration",
        }
    }

    fn context(self) -> &'static str {
        match self {
            Self::Activity => "ActivityContext",
            Self::Orchestration => "OrchestrationContext",
        }
    }

    /// Names of the handle trait and of the function that makes a definition.
    fn names(self, span: Span) -> (Ident, Ident) {
        let (handle, definition) = match self {
            Self::Activity => ("ActivityHandle", "activity"),
            Self::Orchestration => ("OrchestrationHandle", "orchestration"),
        };
        (Ident::new(handle, span), Ident::new(definition, span))
    }
}

/// What is written in the attribute's parentheses.
#[derive(Default)]
pub(crate) struct Arguments {
    pub(crate) name: Option<LitStr>,
    pub(crate) version: Option<LitStr>,
    pub(crate) facade: Option<Path>,
}

impl Arguments {
    pub(crate) fn read(&mut self, meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
        if meta.path.is_ident("name") {
            let name = text(meta, self.name.is_some())?;
            if name.value().is_empty() {
                return Err(Error::new(name.span(), "the name is empty; leave it out to use the function's"));
            }
            self.name = Some(name);
        } else if meta.path.is_ident("version") {
            self.version = Some(text(meta, self.version.is_some())?);
        } else if meta.path.is_ident("crate") {
            self.facade = Some(text(meta, self.facade.is_some())?.parse()?);
        } else {
            return Err(
                meta.error("unknown argument; there are `name`, `version` and `crate`, each `= \"...\"`")
            );
        }
        Ok(())
    }
}

fn text(meta: &ParseNestedMeta<'_>, given: bool) -> syn::Result<LitStr> {
    if given {
        return Err(meta.error("given twice"));
    }
    meta.value()?.parse()
}

/// The items that take the function's place.
pub(crate) fn expand(kind: Kind, arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let mut given = Arguments::default();
    syn::meta::parser(|meta| given.read(&meta)).parse2(arguments)?;
    let function: ItemFn = syn::parse2(item).map_err(|error| {
        Error::new(error.span(), format!("{} is a function with a body: {error}", kind.described()))
    })?;
    let inputs = check(kind, &function.sig)?;
    Ok(generate(kind, given, function, &inputs))
}

/// Refuses what cannot become a handle, and gives the types of the inputs after the context.
fn check(kind: Kind, signature: &Signature) -> syn::Result<Vec<Type>> {
    let what = kind.described();
    let refuse = |span: Span, problem: String| Err(Error::new(span, problem));
    if signature.asyncness.is_none() {
        return refuse(signature.fn_token.span, format!("{what} must be an `async fn`"));
    }
    if let Some(token) = &signature.unsafety {
        return refuse(token.span, format!("{what} cannot be `unsafe`: the runtime calls it"));
    }
    if let Some(abi) = &signature.abi {
        return refuse(abi.span(), format!("{what} cannot have an ABI of its own"));
    }
    if !signature.generics.params.is_empty() {
        let problem = format!("{what} cannot be generic: it is found by name, and a name has one type");
        return refuse(signature.generics.params.span(), problem);
    }
    let mut types = Vec::new();
    for argument in &signature.inputs {
        match argument {
            FnArg::Receiver(receiver) => {
                let problem = format!("{what} is a free function: it outlives every `self`");
                return refuse(receiver.self_token.span, problem);
            }
            FnArg::Typed(typed) => match &*typed.ty {
                Type::Reference(reference) => {
                    let problem =
                        format!("{what} owns its inputs: they come from storage; take an owned type");
                    return refuse(reference.and_token.span, problem);
                }
                Type::ImplTrait(opaque) => {
                    return refuse(opaque.span(), format!("{what} needs inputs of named types"));
                }
                ty => types.push(ty.clone()),
            },
        }
    }
    if types.is_empty() {
        let problem = format!("{what} takes a context first: add `ctx: {}`", kind.context());
        return refuse(signature.paren_token.span.join(), problem);
    }
    if let ReturnType::Default = signature.output {
        return refuse(signature.ident.span(), format!("{what} returns a `Result`: add `-> Result<()>`"));
    }
    types.remove(0);
    Ok(types)
}

fn generate(kind: Kind, given: Arguments, mut function: ItemFn, inputs: &[Type]) -> TokenStream {
    let ident = function.sig.ident.clone();
    // Errors in generated code are shown at the function's name, and lints know that it is generated.
    let here = Span::call_site().located_at(ident.span());
    let facade = given.facade.unwrap_or_else(|| syn::parse_quote_spanned!(here=> ::steadfast));
    let private = quote_spanned!(here=> #facade::__private);
    let (handle, definition) = kind.names(here);
    let name = given.name.unwrap_or_else(|| LitStr::new(&ident.unraw().to_string(), ident.span()));
    let version = given.version.unwrap_or_else(|| LitStr::new("", ident.span()));
    let visibility = function.vis.clone();

    // Documentation belongs to the handle, conditions to everything, and the rest to the code.
    let (docs, others) = split(&function.attrs, "doc");
    let (conditions, others) = split(&others, "cfg");
    function.attrs = others;
    function.sig.ident = format_ident!("run", span = ident.span());

    let input = match inputs {
        [] => quote!(()),
        [one] => quote!(#one),
        several => quote!((#(#several,)*)),
    };
    let names: Vec<_> = (0..inputs.len()).map(|index| format_ident!("input{index}")).collect();
    let pattern = match &*names {
        [one] => quote!(#one),
        _ => quote!((#(#names,)*)),
    };
    let output = match &function.sig.output {
        ReturnType::Type(_, ty) => {
            let there = Span::call_site().located_at(ty.span());
            quote_spanned!(there=> <#ty as #private::Outcome>::Ok)
        }
        ReturnType::Default => quote!(()),
    };
    let registered = quote_spanned! {here=>
        #private::#definition(#name, |context, #pattern: #input| #ident::run(context, #(#names),*))
    };
    let run_docs = format!("The code of `{}`, to be called without a hub.", ident.unraw());

    quote! {
        #(#conditions)*
        #(#docs)*
        #[allow(non_camel_case_types)]
        #[derive(::core::clone::Clone, ::core::marker::Copy, ::core::fmt::Debug)]
        #visibility struct #ident;

        #(#conditions)*
        #[allow(dead_code)]
        impl #ident {
            #[doc = #run_docs]
            #function
        }

        #(#conditions)*
        impl #private::#handle for #ident {
            type Input = #input;
            type Output = #output;

            fn name(&self) -> #private::SmolStr {
                #private::SmolStr::new_static(#name)
            }

            fn version(&self) -> #private::SmolStr {
                #private::SmolStr::new_static(#version)
            }
        }

        #(#conditions)*
        impl #private::Register for #ident {
            fn register(
                self,
                registry: &mut #private::Registry,
            ) -> ::core::result::Result<(), #private::DuplicateRegistration> {
                #private::Register::register(#registered.version(#version), registry)
            }
        }
    }
}

/// The attributes of one name, and the others.
fn split(attributes: &[Attribute], name: &str) -> (Vec<Attribute>, Vec<Attribute>) {
    attributes.iter().cloned().partition(|attribute| attribute.path().is_ident(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(arguments: TokenStream, item: TokenStream) -> String {
        expand(Kind::Activity, arguments, item).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_become_a_handle_is_refused_with_a_reason() {
        let cases = [
            (
                quote!(
                    fn a(ctx: C) -> R {}
                ),
                "must be an `async fn`",
            ),
            (
                quote!(
                    async unsafe fn a(ctx: C) -> R {}
                ),
                "cannot be `unsafe`",
            ),
            (
                quote!(
                    async extern "C" fn a(ctx: C) -> R {}
                ),
                "ABI",
            ),
            (
                quote!(
                    async fn a<T>(ctx: C, input: T) -> R {}
                ),
                "cannot be generic",
            ),
            (
                quote!(
                    async fn a<'a>(ctx: C) -> R {}
                ),
                "cannot be generic",
            ),
            (
                quote!(
                    async fn a(&self, ctx: C) -> R {}
                ),
                "free function",
            ),
            (
                quote!(
                    async fn a(ctx: C, city: &str) -> R {}
                ),
                "owned type",
            ),
            (
                quote!(
                    async fn a(ctx: C, city: impl Into<String>) -> R {}
                ),
                "named types",
            ),
            (
                quote!(
                    async fn a() -> R {}
                ),
                "add `ctx: ActivityContext`",
            ),
            (
                quote!(
                    async fn a(ctx: C) {}
                ),
                "returns a `Result`",
            ),
            (
                quote!(
                    struct A;
                ),
                "a function with a body",
            ),
        ];
        for (item, reason) in cases {
            let shown = item.to_string();
            let refusal = refusal(quote!(), item);
            assert!(refusal.contains(reason), "{shown}: {refusal}");
        }
    }

    #[test]
    fn arguments_are_checked() {
        let item = quote!(
            async fn a(ctx: C) -> R {}
        );
        let cases = [
            (quote!(nam = "x"), "unknown argument"),
            (quote!(name = ""), "is empty"),
            (quote!(name = 3), "expected string literal"),
            (quote!(version = "1", version = "2"), "given twice"),
            (quote!(crate = "not a path"), "unexpected token"),
        ];
        for (arguments, reason) in cases {
            let refusal = refusal(arguments, item.clone());
            assert!(refusal.contains(reason), "{reason}: {refusal}");
        }
    }

    #[test]
    fn raw_names_lose_their_prefix() {
        let items = expand(
            Kind::Orchestration,
            quote!(),
            quote!(
                async fn r#move(ctx: C) -> R {}
            ),
        )
        .unwrap();
        let items = items.to_string();
        assert!(items.contains(r#"new_static ("move")"#), "{items}");
        assert!(items.contains("struct r#move"), "{items}");
    }
}
