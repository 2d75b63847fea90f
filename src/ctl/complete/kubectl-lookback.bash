# Completions of kubectl-lookback for bash: the program itself says what may come next.
_kubectl_lookback() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
        :0) compopt -o default ;;
        :*) ;;
        *) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <(kubectl-lookback __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _kubectl_lookback kubectl-lookback
