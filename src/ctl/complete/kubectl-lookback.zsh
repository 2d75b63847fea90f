#compdef kubectl-lookback
# Completions of kubectl-lookback for zsh: the program itself says what may come next.
_kubectl_lookback() {
    local -a offered
    local line files
    for line in "${(@f)$(kubectl-lookback __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        case $line in
        :0) files=1 ;;
        :*) ;;
        *) offered+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
        esac
    done
    _describe kubectl-lookback offered
    [[ -z $files ]] || _files
}
if [[ $funcstack[1] = _kubectl-lookback ]]; then
    _kubectl_lookback "$@"
else
    compdef _kubectl_lookback kubectl-lookback
fi
