id
uname -a
cat /etc/passwd
ls -la /srv/reports
tar -czf /tmp/.r.tgz /srv/reports
sudo -l
rm /tmp/.r.tgz
exit
