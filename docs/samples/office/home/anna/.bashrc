export EDITOR=vim
alias ll="ls -l"
